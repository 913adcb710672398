"""qb-backup create: of volumes that are named, and of the domains of a host."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack

from qbtools import storing
from qbtools.commands import cli
from qbtools.commands.backup import stagewords
from qbtools.commands.cli import Invocation
from qbtools.commands.pipe import volumeoptions
from qbtools.errors import Refused, UsageError, escape
from qbtools.formats import header
from qbtools.hosts import results, savingtext
from qbtools.hosts.client import Host
from qbtools.runs import creating, savinghost, sidefiles
from qbtools.runs.creating import Contents, Passages
from qbtools.runs.sidefiles import SideFile
from qbtools.runs.wiring import Wiring

_PATIENCE = "500h"
"""A volume of nothing but zeros takes its time, and gives nothing to write; we would notice if a stage died."""


def run(call: Invocation) -> None:
    """Saves; the archive is complete where it returns."""
    if call.options["--compress"] not in header.COMPRESSIONS:
        raise UsageError(f"--compress: must be one of {', '.join(header.COMPRESSIONS)}")
    if call.options["--output"] is None and not call.options["--dry-run"]:
        call.stdout()  # refuses a terminal
    if call.options["--host"] is not None:
        _from_host(call)
    else:
        with _side(call) as side:
            contents = creating.of_words(call.options["VOLUME"], volumeoptions.reading(call))
            _seal(call, side, contents, None, Passages())


def _side(call: Invocation) -> SideFile:
    """The file of --id-file, opened. Refused or Failed, before anything is looked at, where it or --output cannot be
    written, or it is a file that the run needs."""
    opts = call.options
    others = {f"the VOLUME {word}": creating.file_of(word) for word in opts["VOLUME"] if opts["--host"] is None}
    others["the passphrase"] = opts["--passphrase-file"]
    if opts["--output"] is not None:
        if os.path.lexists(opts["--output"]):
            raise Refused(f"{opts['--output']} already exists")
        with storing.PartialFile(opts["--output"], overwrite=False, keep=False):
            pass  # it can be made; qb-store makes it
        others["the archive"] = opts["--output"]
        others["the archive before it is complete"] = opts["--output"] + storing.SUFFIX
    if opts["--id-file"] is not None:
        sidefiles.refuse_same(opts["--id-file"], others)
    return SideFile(None if opts["--dry-run"] else opts["--id-file"])


def _seal(
    call: Invocation, side: SideFile, contents: Contents, taking: savinghost.Taking | None, passages: Passages
) -> None:
    opts = call.options
    inputs = stagewords.inputs(call, None)
    backup_id = header.new_backup_id(time.time(), os.urandom(8))
    with ExitStack() as cleanup:
        call.say(f"backup ID {backup_id}")
        seal = [
            *inputs.words,
            *stagewords.chosen(call, stagewords.SEALING),
            f"--compression={opts['--compress']}",
            f"--backup-id={backup_id}",
            f"--total={contents.total}",
        ]
        command, groups, voice = "create", {"seal": seal}, stagewords.voice(call)
        if opts["--output"] is not None:
            command = "store"
            groups["store"] = [*voice, f"--idle-limit={_PATIENCE}", "--", opts["--output"]]
        if taking is not None:
            cleanup.callback(_release, call, taking)
        wiring = Wiring(stagewords.script(), command, groups, voice, inputs.stdin, inputs.keep)
        source = taking.source if taking else _no_source
        read = taking.read if taking else _nothing
        creating.save(wiring, contents, source, read, passages)
        side.finish(f"{backup_id}\n")


def _no_source(name: str) -> str:
    raise UsageError(f"{name} has no source")


def _nothing(_name: str) -> None:
    """A volume that is named takes its own snapshot."""


def _release(call: Invocation, taking: savinghost.Taking) -> None:
    if taking.held:
        cli.heed_signals()  # the first one has brought us here, a second one ends this
        call.say(
            "releasing snapshots: this may take up to a minute; a second signal ends it and leaves them to the next run"
        )
        taking.release()


def _from_host(call: Invocation) -> None:
    opts = call.options
    how = volumeoptions.reading(call)
    choice = savinghost.Choice(opts["VOLUME"], opts["--include"], opts["--exclude"])
    found: list[results.Result] = []
    left_out: list[dict[str, object]] = []
    status = 0
    cleanup = ExitStack()
    try:
        side = cleanup.enter_context(_side(call))
        survey = savinghost.look(Host(opts["--host"], call.warn), choice, how)
        left_out = savingtext.left_out_document(survey.left_out, survey.unsaved)
        if opts["--dry-run"]:
            _show(call, survey)
            return
        if not survey.machines:
            raise Refused("no domain is selected for backup", "name one, or set include_in_backups")
        for one in survey.left_out:
            call.note(f"left out: {one.domain.name} ({one.reason})")
        passages = Passages()
        try:
            taking = savinghost.Taking(survey, how)
            _seal(call, side, taking.contents, taking, passages)
        finally:
            found = results.of_saving(survey.files, passages.log, passages.complete)
    except BaseException as error:
        status = cli.status_of(error)
        raise
    finally:
        cleanup.close()
        if opts["--json"] and not (opts["--dry-run"] and not status):
            stagewords.print_json(call, results.as_document(found, status, left_out=left_out))


def _show(call: Invocation, survey: savinghost.Survey) -> None:
    shown = survey.machines, survey.left_out, survey.unsaved
    if call.options["--json"]:
        stagewords.print_json(call, savingtext.as_document(*shown))
    else:
        lines = [f"{escape(line)}\n" for line in savingtext.table(*shown)]
        call.stdout(binary=False).write("".join(lines).encode())
