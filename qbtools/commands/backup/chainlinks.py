"""The archives of a chain: a full backup and its increments. Each is read without its chunks, and opened later."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from qbtools import descriptors, passphrase
from qbtools.commands.archive import openoptions, receipts
from qbtools.commands.backup import stagewords
from qbtools.commands.backup.optionrules import command_of
from qbtools.commands.cli import Invocation
from qbtools.errors import QbError, UsageError, naming
from qbtools.formats import chain
from qbtools.formats.beginning import Beginning
from qbtools.formats.chain import Link
from qbtools.formats.containerhead import parse_fixed
from qbtools.formats.header import BackupHeader
from qbtools.lean import NamedTuple
from qbtools.runs import chaining
from qbtools.runs.chaining import Need, Share
from qbtools.streams import Reader

_SECRETS = ("--passphrase-file", "--passphrase-fd", "--passphrase-command")
_FEW, _EACH = 64, 9  # descriptors of a run, and for each of its archives: its file, two ends of four pipes
_MANIFEST = 256  # more bytes than a line of a manifest has besides the name


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


def allow_descriptors(files: Sequence[str]) -> bool:
    """Raises the limit of open descriptors, if so many archives need more. Returns whether that is possible."""
    return descriptors.allow(_FEW + _EACH * len(files))


def opened(files: Sequence[str], cleanup: ExitStack) -> list[int]:
    """The descriptors of archives in regular files. cleanup: closes them. UsageError for any other file."""
    found = []
    for path in files:
        found.append(_opened(path))
        cleanup.callback(os.close, found[-1])
    return found


def read(call: Invocation, files: Sequence[str], fds: Sequence[int], typed: bytes | None) -> list[Archive]:
    """Reads archives, in any order, and returns the chain to the last one, or to that of --at.

    fds: the open files. All files of options are read before; nothing is written. typed: of typed_passphrase(). Errors
    as chain.order(), and Refused if they are restored or merged and there is not enough memory for all of them.
    """
    demanded = openoptions.terms(call)._replace(receipt=None)  # that one is for the last archive alone
    found = {}
    links = []
    for path, fd in zip(files, fds, strict=True):
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


def kept(archives: Sequence[Archive]) -> Mapping[str, str]:
    """The files of the archives, which a run must not change, by description."""
    return {f"the archive {archive.path}": archive.path for archive in archives if archive.head is None}
