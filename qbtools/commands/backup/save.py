"""qb-backup create for volumes on the command line, and the code that it shares with savehost.py."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from qbtools import storing
from qbtools.commands.archive import keyoptions, signoptions
from qbtools.commands.backup import stagewords
from qbtools.commands.backup.beside import Beside, Paths
from qbtools.commands.cli import Invocation
from qbtools.commands.pipe import volumeoptions
from qbtools.errors import Refused, UsageError
from qbtools.formats import header
from qbtools.lean import TYPE_CHECKING, NamedTuple
from qbtools.runs import creating
from qbtools.runs.creating import Contents, Passages
from qbtools.runs.wiring import Wiring

if TYPE_CHECKING:
    from qbtools.runs import savinghost

_PATIENCE = "500h"
"""The --idle-limit of qb-store. A large volume of zeros gives no data for a long time; dead stages are noticed."""


def run(call: Invocation) -> None:
    """Saves volumes. The archive is complete if it returns."""
    check_options(call)
    with beside(call) as files:
        contents = creating.of_words(call.options["VOLUME"], volumeoptions.reading(call))
        seal(call, Job(new_id(), contents, call.options["--output"], Passages(), files))


def check_options(call: Invocation) -> None:
    """UsageError for an unknown compression, for options of the passphrase or the signature that exclude each other,
    and if the archive would be written to a terminal."""
    if call.options["--compress"] not in header.COMPRESSIONS:
        raise UsageError(f"--compress: must be one of {', '.join(header.COMPRESSIONS)}")
    keyoptions.makes_passphrase(call)
    signoptions.signs(call)
    if not any(call.options[option] for option in ("--output", "--store", "--dry-run")):
        call.stdout()  # refuses a terminal


def new_id() -> str:
    """An ID for a backup that begins now."""
    return header.new_backup_id(time.time(), os.urandom(8))


class Job(NamedTuple):
    """An archive to be written. output: its file, None for standard output. passages: records the state of each file.

    beside: the files for its ID and its receipt. taking: gives the sources that are not known before they are read.
    lost: as for creating.save. secret: the passphrase, if it has already been obtained. words: more options for
    qb-seal. environment: more variables for the stages. stdout: a descriptor that replaces standard output.
    """

    backup_id: str
    contents: Contents
    output: str | None
    passages: Passages
    beside: Beside
    taking: savinghost.Taking | None = None
    lost: Callable[[str, str], None] | None = None
    secret: bytes | None = None
    words: Sequence[str] = ()
    environment: Mapping[str, str] | None = None
    stdout: int | None = None


def beside(call: Invocation, read: Mapping[str, str] = {}) -> Beside:
    """The open files of --id-file and --receipt. Refused or Failed, before anything is read, if one of them or --output
    cannot be written, or is a file that the run needs. read: more of those, by description."""
    opts = call.options
    others = {f"the VOLUME {word}": creating.file_of(word) for word in opts["VOLUME"] if opts["--host"] is None}
    others |= {**stagewords.files(call), **read}
    largest = None
    if opts["--output"] is not None:
        if os.path.lexists(opts["--output"]):
            raise Refused(f"{opts['--output']} already exists")
        largest = _largest(opts["--output"])
        others["the archive"] = opts["--output"]
        others["the archive before it is complete"] = opts["--output"] + storing.SUFFIX
    paths = Paths(opts["--id-file"], opts["--receipt"])
    paths.refuse_same(others)
    return Beside(Paths() if opts["--dry-run"] else paths, opts["--series"] is not None, largest)


def seal(call: Invocation, job: Job) -> None:
    """Runs the stages until the archive is complete. Errors as creating.save and SideFile."""
    opts = call.options
    backup_id, taking = job.backup_id, job.taking
    with ExitStack() as cleanup:
        inputs = cleanup.enter_context(stagewords.Inputs(call, secret=job.secret))
        call.say(f"backup ID {backup_id}")
        receipt_words, receipt_pipe = job.beside.descriptors()
        seal = [
            *inputs.words,
            *receipt_words,
            *job.words,
            f"--compression={opts['--compress']}",
            f"--backup-id={backup_id}",
            f"--total={job.contents.total}",
        ]
        if job.lost is not None:
            seal.append("--keep-going")
        groups, voice = {"seal": seal}, stagewords.voice(call)
        if job.output is not None:
            _warn_of_limit(call, job.output, job.contents.total, job.beside.largest)
            groups["store"] = store_words(call, job.output)
        if taking is not None:
            cleanup.callback(_release, call, taking)
        keep = [*inputs.keep, *receipt_pipe]
        script = stagewords.script()
        wiring = Wiring(script, "create", groups, voice, inputs.stdin, keep, job.environment, job.stdout)
        source = taking.source if taking else _no_source
        read = taking.read if taking else _nothing
        creating.save(wiring, job.contents, source, read, job.passages, job.lost)
        job.beside.finish(backup_id)


def store_words(call: Invocation, output: str) -> list[str]:
    """The words for the qb-store that writes the archive to a file."""
    return [*stagewords.voice(call), f"--idle-limit={_PATIENCE}", "--", output]


def _largest(output: str) -> int:
    """The most bytes that a new archive can have. Errors if it cannot be created; qb-store creates it later."""
    with storing.PartialFile(output, overwrite=False, keep=False) as file:
        return file.largest()


def _warn_of_limit(call: Invocation, output: str, total: int, largest: int | None) -> None:
    """Warns if the archive may become larger than a file can be. largest: as for Beside."""
    if total > (_largest(output) if largest is None else largest):
        call.warn(f"{output} cannot grow to the {total} bytes that will be read: the run fails unless it stays smaller")


def _no_source(name: str) -> str:
    raise UsageError(f"{name} has no source")


def _nothing(_name: str) -> None:
    """Does nothing: qb-volread takes the snapshot of a volume on the command line."""


def _release(call: Invocation, taking: savinghost.Taking) -> None:
    if taking.held:
        stagewords.announce_cleanup(call, "releasing snapshots")
        taking.hurry()
        taking.release()
