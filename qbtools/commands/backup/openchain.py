"""qb-backup list, verify and restore with several archives: a full backup and increments of it."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from qbtools.commands.archive import routes as wanted_routes
from qbtools.commands.archive import tocommand
from qbtools.commands.backup import chainlinks, stagewords
from qbtools.commands.backup import open as opened
from qbtools.commands.backup.chainlinks import Archive
from qbtools.commands.backup.optionrules import command_of
from qbtools.commands.cli import Invocation
from qbtools.formats.manifest import line_digest
from qbtools.runs import checking, filling, opening
from qbtools.runs.eventpipe import EventPipe
from qbtools.runs.listpipe import ListPipe
from qbtools.runs.opening import Opening, Routes
from qbtools.runs.wiring import Wiring


def run(call: Invocation, files: Sequence[str]) -> None:
    """Lists, verifies or restores the last state of a chain, or that of --at. Raises if any part of it failed."""
    command = command_of(call)
    if call.options["--host"] is not None:
        from qbtools.commands.backup import openhost  # it takes as long to load as everything else

        openhost.run(call, partial(_restore_to_host, call, files))
        return
    with ExitStack() as cleanup:
        archives = chainlinks.read(call, files, chainlinks.typed_passphrase(call), cleanup)
        call.options["FILE"] = archives[-1].path
        if command == "list":
            _list(call, archives[-1])
        elif command == "verify":
            _verify(call, archives)
        else:
            fill = filling.Filling(opened.where(call, chainlinks.kept(archives)), call.note, call.warn)
            restore(call, archives, fill)
            fill.finish()


def _restore_to_host(call: Invocation, files: Sequence[str], made: Opening, words: Sequence[str]) -> None:
    with ExitStack() as cleanup:
        archives = chainlinks.read(call, files, chainlinks.typed_passphrase(call), cleanup)
        restore(call, archives, made, words, partly=True)


def _stages(call: Invocation, archive: Archive, cleanup: ExitStack, words: Sequence[str] = ()) -> Wiring:
    """The stages that open one archive, as stagewords.opening()."""
    handed = chainlinks.hand(call, archive, cleanup)
    groups = {"open": [*stagewords.shown(call), *handed.words, *words]}
    return Wiring(stagewords.script(), "open", groups, stagewords.voice(call), archive.fd, handed.keep)


def _list(call: Invocation, archive: Archive) -> None:
    listing = opened.Listed(call)
    with ExitStack() as cleanup:
        stages = _stages(call, archive, cleanup)
        opening.open_all(stages, checking.Listing(listing.show), call.warn, listing.opened)


def _verify(call: Invocation, archives: Sequence[Archive]) -> None:
    """Verifies each archive of the chain, and that each increment belongs to the volume in the archive before it."""
    lines: dict[str, str] = {}
    for archive in archives:
        call.options["FILE"] = archive.path
        verifying = checking.Verifying(call.warn, lines)
        with ExitStack() as cleanup:
            opened.verify(call, _stages(call, archive, cleanup, ["--verify"]), verifying)
        lines = {name: line_digest(record) for name, record in archive.link.records.items()}


def restore(
    call: Invocation, archives: Sequence[Archive], fill: Opening, words: Sequence[str] = (), partly: bool = False
) -> None:
    """Opens the last archive as opening.open_all() does, with each volume merged from all of them.

    words: more options for the qb-unseal of the last archive. partly: a file that failed when it was saved does not
    keep the others from being restored.
    """
    last = archives[-1]

    def routed(routes: Routes) -> Routes:
        if not partly:
            _check_there(last, dict(routes))
        return streams.merged(routes, call.note)

    with ExitStack() as cleanup:
        pipes, events = [ListPipe() for _ in archives[:-1]], [EventPipe()]
        found = chainlinks.side_by_side(call, archives, pipes, events, cleanup)
        found.groups[f"link{len(archives) - 1}"].extend(words)
        streams = found.streams
        nothing = cleanup.enter_context(io.FileIO(os.devnull)).fileno()
        voice, script = stagewords.voice(call), stagewords.script()
        groups, keep, environment = found.groups, found.keep, found.environment
        stages = Wiring(script, "chain", groups, voice, nothing, keep, environment, lists=pipes, events=events)
        opening.open_all(stages, fill, call.warn, routed=routed)


def _check_there(last: Archive, targets: Mapping[str, str]) -> None:
    """Damaged if a file that is wanted failed when it was saved, or is missing."""
    wanted = [name for name in targets if not name.startswith(("*", "?")) and not name.endswith("/*")]
    if failed := [name for name in last.failed if name in wanted or "*" in targets]:
        raise tocommand.incomplete(failed)
    for name in wanted:
        if name not in last.link.records:
            raise wanted_routes.missing(name)
