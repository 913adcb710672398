"""The archives of a chain: a full backup and its increments. Each is read without its chunks, and opened later."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from subprocess import DEVNULL

from qbtools import passphrase, processes
from qbtools.commands.archive import openoptions, receipts
from qbtools.commands.backup import stagewords
from qbtools.commands.backup.optionrules import command_of
from qbtools.commands.cli import Invocation
from qbtools.errors import QbError, UsageError, naming
from qbtools.formats import chain, receipt
from qbtools.formats.beginning import Beginning, header_digest
from qbtools.formats.chain import Link
from qbtools.formats.containerhead import parse_fixed
from qbtools.formats.header import BackupHeader
from qbtools.formats.receipt import Receipt
from qbtools.lean import NamedTuple
from qbtools.runs import chaining, fifos
from qbtools.runs.chaining import Need, Share
from qbtools.runs.eventpipe import EventPipe
from qbtools.runs.listpipe import ListPipe
from qbtools.runs.wiring import Wiring
from qbtools.streams import Reader

_LIMITS = ("--max-work", "--max-chunk", "--jobs")
_SECRETS = ("--passphrase-file", "--passphrase-fd", "--passphrase-command")
_MANIFEST = 256  # more bytes than a line of a manifest has besides the name
_DIGEST = "0" * 64  # no program that opens an archive compares this digest of a receipt


class Archive(NamedTuple):
    """An archive that was read once: everything but the chunks was checked. fd: its file. failed: the files that failed
    when they were saved. share: of the memory, for opening it.

    head: what was read of a pipe, where the rest comes from; None: the file can be read again. known: its manifest was
    read; otherwise link has no records, and a manifest only if the user has its receipt.
    """

    path: str
    fd: int
    header: BackupHeader
    beginning: Beginning
    secret: bytes
    link: Link
    failed: Sequence[str] = ()
    share: Share = Share(0)
    head: bytes | None = None
    known: bool = True

    @property
    def need(self) -> Need:
        """The memory that it takes to open it."""
        parameters, _salt = parse_fixed(self.beginning.untrusted_sealed)
        files = self.link.records.values()
        listed = _MANIFEST * (len(files) + 1) + sum(len(one.name) for one in files)
        return Need(
            parameters.memory, max([listed, *(min(one.size, self.header.chunk_size or one.size) for one in files)])
        )


def typed_passphrase(call: Invocation) -> bytes | None:
    """The passphrase of the user for all archives; None if -i or --key-command opens them."""
    openoptions.check_keys(call)
    if call.options["--identity"] or call.options["--key-command"] is not None:
        return None
    return passphrase.obtain(call.options, os.environ, sealing=False, warn=call.warn)


def read(call: Invocation, files: Sequence[str], typed: bytes | None, cleanup: ExitStack) -> list[Archive]:
    """Reads archives, in any order, and returns the chain to the last one, or to that of --at.

    All files of options are read before; nothing is written. typed: of typed_passphrase(). cleanup: closes the files.
    Errors as chain.order(), and Refused if they are restored or merged and there is not enough memory for all of them.
    """
    demanded = openoptions.terms(call)._replace(receipt=None)  # that one is for the last archive alone
    found = {}
    links = []
    for path in files:
        fd = _opened(path)
        cleanup.callback(os.close, fd)
        try:
            one = _read(call, demanded, path, fd, typed)
        except QbError as error:
            error.message = f"{path}: {error.message}"
            raise
        found[one.link.backup_id] = one
        links.append(one.link)
    archives = [found[one.backup_id] for one in chain.order(links, call.options["--at"])]
    _check_last(call, archives[-1])
    for one in archives:
        call.note(f"{one.path}: backup ID {one.link.backup_id}")
    shares = [Share(demanded.limits.memory)] * len(archives)
    if command_of(call) in ("restore", "merge"):  # the others open one archive after the other
        shares = chaining.shares(demanded.limits.memory, [one.need for one in archives])
    return [one._replace(share=share) for one, share in zip(archives, shares, strict=True)]


def _opened(path: str) -> int:
    if path == "-":
        raise UsageError("several archives cannot come on standard input", "name their files")
    with naming(f"read {path}"):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UsageError(f"{path} is not a regular file: archives can be merged from files only")
    return fd


def _read(call: Invocation, demanded: openoptions.Terms, path: str, fd: int, typed: bytes | None) -> Archive:
    reader = Reader(io.FileIO(fd, closefd=False), path)
    archive, beginning, secret = openoptions.open_for(asking(call, typed), demanded, reader)
    for _event in archive.events(lambda _name: False):
        pass
    link = chain.link("the archive", archive.header, archive.manifest_digest, archive.records)
    return Archive(path, fd, archive.header, beginning, secret, link._replace(label=path), archive.failed)


def asking(call: Invocation, typed: bytes | None) -> Invocation:
    """The same command line for one archive. typed: it is asked for once, and then given to each archive."""
    if typed is None:
        return call
    pipe = stagewords.piped(typed)
    return Invocation(call.program, {**call.options, **dict.fromkeys(_SECRETS), "--passphrase-fd": str(pipe)})


def _check_last(call: Invocation, last: Archive) -> None:
    """Compares the last archive with --expect-id, --expect and --require-version."""
    openoptions.check_expectations(call, last.header)
    expected = receipts.expected(call)
    if expected is not None:
        expected.check_header(last.beginning.untrusted_plain, last.beginning.untrusted_sealed)
        expected.check_manifest(last.link.manifest)


class Handed(NamedTuple):
    """What a qb-unseal is given, so that it opens exactly the archive that was read before.

    source: where bin/qb-backup takes the archive from. words: its options. keep: descriptors that it must inherit.
    """

    source: Sequence[str]
    words: Sequence[str]
    keep: Sequence[int]


def hand(call: Invocation, archive: Archive, cleanup: ExitStack) -> Handed:
    """Begins the file of an archive again. cleanup: closes what is made for it."""
    secret = stagewords.piped(archive.secret)
    cleanup.callback(os.close, secret)
    limits = [f"{option}={call.options[option]}" for option in _LIMITS if option in call.given]
    given = [f"--max-memory={archive.share.limit}", f"--passphrase-fd={secret}"]
    keep = [archive.fd, secret]
    if archive.link.manifest:
        plain, sealed, _keys = archive.beginning
        text = Receipt(archive.link.backup_id, header_digest(plain, sealed), archive.link.manifest, _DIGEST, 0)
        keep.append(_piped(receipt.serialise(text), cleanup))
        given.append(f"--expect=/dev/fd/{keep[-1]}")
    if archive.head is None:
        os.lseek(archive.fd, 0, os.SEEK_SET)
    else:
        keep.append(_piped(archive.head, cleanup))
    head = "-" if archive.head is None else str(keep[-1])
    return Handed([str(archive.fd), head], [*limits, *given], keep)


def _piped(data: bytes, cleanup: ExitStack) -> int:
    """The read end of a pipe that gives this content. cleanup: closes it."""
    fd = processes.fed(data)
    cleanup.callback(os.close, fd)
    return fd


class Stages(NamedTuple):
    """What the stages need that open archives side by side, as for Wiring.

    fifos: through which the archives send what they have.
    """

    groups: dict[str, list[str]]
    keep: list[int]
    environment: Mapping[str, str]
    fifos: chaining.Fifos
    pipes: Sequence[ListPipe]
    events: Sequence[EventPipe]

    def wiring(self, call: Invocation, command: str) -> Wiring:
        """These stages, with nothing on their standard input. command: the name of the pipe."""
        return Wiring(
            stagewords.script(),
            command,
            self.groups,
            stagewords.voice(call),
            DEVNULL,
            self.keep,
            self.environment,
            lists=self.pipes,
            events=self.events,
        )


def side_by_side(
    call: Invocation,
    archives: Sequence[Archive],
    pipes: Sequence[ListPipe],
    events: Sequence[EventPipe],
    cleanup: ExitStack,
) -> Stages:
    """The stages that open all archives of a chain.

    pipes: for the routes of the first of them, or of all. events: for the reports of the last one, or of all.
    """
    folder = cleanup.enter_context(fifos.directory())
    stages = Stages({}, [], {chaining.ENVIRONMENT: folder}, chaining.Fifos(folder, pipes), pipes, events)
    turns = [f"--turns={_turns(archives[0].share.turns, cleanup)}"] if archives[0].share.turns else []
    for at, archive in enumerate(archives):
        handed = hand(call, archive, cleanup)
        own = [*turns, *(stagewords.shown(call) if at == 0 else ["-q"])]  # the first is the longest: it shows progress
        if at < len(pipes):
            own.append(f"--routes=/dev/fd/{pipes[at].reader}")
        if at >= len(archives) - len(events):
            own.append(f"--report=/dev/fd/{events[at - len(archives)].writer}")
        stages.groups[f"link{at}"] = [*handed.source, *own, *handed.words]
        stages.keep.extend(handed.keep)
    return stages


def _turns(count: int, cleanup: ExitStack) -> str:
    """A directory of files that qb-unseals lock in turn."""
    folder = cleanup.enter_context(fifos.directory())
    for turn in range(count):
        path = os.path.join(folder, str(turn))
        with naming(f"create {path}"):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return folder


def kept(archives: Sequence[Archive]) -> Mapping[str, str]:
    """The files of the archives, which a run must not change, by description."""
    return {f"the archive {archive.path}": archive.path for archive in archives if archive.head is None}
