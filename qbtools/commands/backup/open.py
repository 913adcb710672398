"""qb-backup list, verify and restore."""

from __future__ import annotations

import os

from qbtools.commands.backup import stagewords
from qbtools.commands.backup.optionrules import command_of
from qbtools.commands.cli import Invocation
from qbtools.domains import inventory
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import UsageError
from qbtools.runs import checking, filling, opening


def run(call: Invocation) -> None:
    """Lists, verifies or restores; raises where not all of it went well."""
    if call.options["--host"] is not None:
        from qbtools.commands.backup import openhost  # it takes as long to load as all the rest

        openhost.run(call)
        return
    command = command_of(call)
    if command == "list":
        listing = checking.Listing(lambda metadata: _list(call, metadata))
        opening.open_all(stagewords.opening(call), listing, call.warn)
    elif command == "verify":
        verifying = checking.Verifying(call.warn)
        opening.open_all(stagewords.opening(call, ["--verify"]), verifying, call.warn)
        verifying.finish()
    else:
        fill = filling.Filling(_where(call), call.note, call.warn)
        opening.open_all(stagewords.opening(call), fill, call.warn)
        fill.finish()


def _list(call: Invocation, metadata: Metadata) -> None:
    out = call.stdout(binary=False)
    if call.options["--json"]:
        stagewords.print_json(call, inventory.as_document(metadata))
    else:
        out.write_lines(entry.to_line() for entry in inventory.entries(metadata))


def _where(call: Invocation) -> filling.Where:
    opts = call.options
    only = filling.read_only(opts["--only"])
    to = opts["--to"]
    for option in ("--to", "--pool"):
        if opts[option] is not None and ("\n" in opts[option] or "\t" in opts[option]):
            raise UsageError(f"{option}: the name has a tab or a newline in it")
    if to is not None and not to.startswith("/"):
        to = f"./{to}"  # so that it is taken for nothing but a path
    mapped = filling.read_map(opts["--map"])
    kept, size = _files(call)
    flags = [bool(opts[option]) for option in ("--overwrite", "--shrink", "--skip-existing")]
    return filling.Where(to, opts["--pool"], mapped, only, kept, size, *flags)


def _files(call: Invocation) -> tuple[dict[str, str], int | None]:
    """The files that must stay, by what they are, and the size of the archive, None where it is no file."""
    file = call.options["FILE"]
    archive = "/dev/stdin" if file in (None, "-") else str(file)
    kept = {"the archive": archive, "the passphrase": call.options["--passphrase-file"]}
    kept = {words: path for words, path in kept.items() if path is not None and os.path.isfile(path)}
    return kept, os.path.getsize(archive) if "the archive" in kept else None
