"""qb-backup list, verify and restore."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from qbtools.amounts import amount
from qbtools.commands.backup import stagewords
from qbtools.commands.backup.optionrules import command_of
from qbtools.commands.cli import Invocation
from qbtools.domains import inventory
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import UsageError
from qbtools.formats import header
from qbtools.runs import checking, filling, opening
from qbtools.runs.hearing import Happened
from qbtools.runs.wiring import Wiring


def run(call: Invocation) -> None:
    """Lists, verifies or restores. Raises if any part of it failed."""
    if call.options["--host"] is not None:
        from qbtools.commands.backup import openhost  # it takes as long to load as everything else

        openhost.run(call)
        return
    command = command_of(call)
    if command == "list":
        listed = Listed(call)
        opening.open_all(stagewords.opening(call), checking.Listing(listed.show), call.warn, listed.opened)
    elif command == "verify":
        verify(call, stagewords.opening(call, ["--verify"]), checking.Verifying(call.warn))
    else:
        fill = filling.Filling(where(call), call.note, call.warn)
        opening.open_all(stagewords.opening(call), fill, call.warn, opening.refuse_increments)
        fill.finish()


def verify(
    call: Invocation,
    stages: Wiring,
    verifying: checking.Verifying,
    heard: Callable[[Happened], None] = lambda _: None,
) -> None:
    """Verifies the archive FILE, and prints a line about it. heard: as for opening.open_all()."""
    archive = [Happened("opened", "")]

    def opened(event: Happened) -> None:
        archive.append(event)
        verifying.opened(event)

    opening.open_all(stages, verifying, call.warn, opened, heard=heard)
    verifying.finish()
    _verified(call, verifying, archive[-1])


class Listed:
    """Prints the output of list."""

    def __init__(self, call: Invocation) -> None:
        self._call = call
        self._archive = Happened("opened", "")

    def opened(self, archive: Happened) -> None:
        self._archive = archive
        self._call.note(f"backup ID {archive.backup_id or 'none'}, made {_made(archive)}, version {archive.version}")
        if archive.base:
            self._call.note(f"increments of the backup {archive.base}")

    def show(self, metadata: Metadata) -> None:
        out = self._call.stdout(binary=False)
        if self._call.options["--json"]:
            known = self._archive
            about = {"backup_id": known.backup_id or None, "version": known.version, "base": known.base or None}
            stagewords.print_json(self._call, {**about, **inventory.as_document(metadata)})
        elif os.isatty(1):
            out.write("".join(f"{line}\n" for line in inventory.table(metadata)).encode())
        else:
            out.write_lines(entry.to_line() for entry in inventory.entries(metadata))


def _made(archive: Happened) -> str:
    return header.made(archive.backup_id) or "at an unknown time"


def _verified(call: Invocation, verifying: checking.Verifying, archive: Happened) -> None:
    """Prints the last line, on a terminal or with --verbose."""
    files = f"{verifying.files} file{'s' * (verifying.files != 1)}"
    complete = "complete" if archive.manifest else "complete as far as the metadata tells"
    name = "the archive" if call.options["FILE"] in (None, "-") else call.options["FILE"]
    line = f"{name}: {files}, {amount(verifying.size)}, made {_made(archive)}, {complete}"
    if os.isatty(2) and not call.verbose:
        call.say(line)
    else:
        call.note(line)


def where(call: Invocation, kept_too: Mapping[str, str] = {}) -> filling.Where:
    """The targets that the user gives. kept_too: more files that the run must not change, by description."""
    opts = call.options
    only = filling.read_only(opts["--only"])
    to = opts["--to"]
    for option in ("--to", "--pool"):
        if opts[option] is not None and ("\n" in opts[option] or "\t" in opts[option]):
            raise UsageError(f"{option}: the name has a tab or a newline in it")
    if to is not None and not to.startswith("/"):
        to = f"./{to}"  # so that it can only be a path
    mapped = filling.read_map(opts["--map"])
    kept = {"the archive": stagewords.archive_path(call), **stagewords.files(call)}
    kept = {words: path for words, path in kept.items() if os.path.isfile(path)}
    flags = [bool(opts[option]) for option in ("--overwrite", "--shrink", "--skip-existing")]
    return filling.Where(to, opts["--pool"], mapped, only, {**kept, **kept_too}, stagewords.archive_file(call), *flags)
