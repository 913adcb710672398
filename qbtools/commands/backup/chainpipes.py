"""The archives of a chain, where one of them is a pipe: each is read once, in the order of the chain.

Only the beginning of each archive is read before the stages start. They get what was read of a pipe, and then its rest.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack

from qbtools.commands.archive import openoptions
from qbtools.commands.backup import chainlinks, stagewords
from qbtools.commands.backup.chainlinks import Archive
from qbtools.commands.backup.optionrules import command_of
from qbtools.commands.cli import Invocation
from qbtools.errors import Damaged, Failed, QbError, UsageError, naming
from qbtools.formats import chain
from qbtools.formats.chain import Link
from qbtools.formats.containerhead import parse_fixed
from qbtools.runs import chaining
from qbtools.runs.chaining import Need, Share
from qbtools.streams import Reader

_MAX_HEAD = 1 << 20  # bytes; the longest beginning has less than half of it
_LATER = "known at its end"  # the manifest
_ONLY_FILES = ("--at", "--keep-going")


def among(files: Sequence[str]) -> bool:
    """Whether one of the files exists and is no regular file."""
    return any(os.path.exists(path) and not os.path.isfile(path) for path in files)


def read(call: Invocation, files: Sequence[str], typed: bytes | None, cleanup: ExitStack) -> list[Archive]:
    """Reads the beginnings of archives, which are a chain in their order. typed, cleanup: as chainlinks.read().

    Damaged if they are no chain, or in another order; UsageError for options that need regular files; Refused as
    chainlinks.read().
    """
    for option in _ONLY_FILES:
        if option in call.given:
            raise UsageError(f"{option} needs archives in regular files")
    if "-" in files:
        raise UsageError("several archives cannot come on standard input", "name their files")
    demanded = openoptions.terms(call)
    before = demanded._replace(receipt=None, writer=demanded.writer.without_receipt())
    archives = []
    for at, path in enumerate(files, 1):
        fd = _opened(path)
        cleanup.callback(os.close, fd)
        try:
            archives.append(_begun(call, demanded if at == len(files) else before, path, fd, typed))
        except QbError as error:
            error.message = f"{path}: {error.message}"
            raise
    openoptions.check_expectations(call, archives[-1].header)
    _check_order([one.link for one in archives])
    for one in archives:
        call.note(f"{one.path}: backup ID {one.link.backup_id}")
    shares = [Share(demanded.limits.memory)] * len(archives)
    if command_of(call) == "restore":
        shares = chaining.shares(demanded.limits.memory, [_need(one, demanded) for one in archives])
    return [one._replace(share=share) for one, share in zip(archives, shares, strict=True)]


def _need(archive: Archive, demanded: openoptions.Terms) -> Need:
    """The memory that it takes to open an archive. The chunks of increments are mostly small: they get a share."""
    parameters, _salt = parse_fixed(archive.beginning.untrusted_sealed)
    size = archive.header.chunk_size or demanded.limits.chunk
    return Need(parameters.memory, size if archive.link.base is None else 0)


class _Pipe:
    """A pipe as the input of a Reader. data: everything that was read from it."""

    def __init__(self, fd: int) -> None:
        self._file = io.FileIO(fd, closefd=False)
        self.data = bytearray()

    def readinto(self, buffer: bytearray | memoryview, /) -> int:
        count = self._file.readinto(buffer) or 0
        self.data += memoryview(buffer)[:count]
        if len(self.data) > _MAX_HEAD:
            raise Damaged("not a backup: its beginning does not end")
        return count


def _opened(path: str) -> int:
    """A descriptor, which waits for data. A FIFO waits for its writer."""
    with naming(f"read {path}"):
        kind = os.stat(path).st_mode
        if stat.S_ISDIR(kind):
            raise Failed(f"{path} is a directory")
        match = stagewords.OPEN_FILE.fullmatch(path)
        if stat.S_ISSOCK(kind) and match:  # its path cannot be opened
            fd = os.dup(int(match[1] or "0"))
        else:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.set_blocking(fd, True)
    return fd


def _begun(call: Invocation, demanded: openoptions.Terms, path: str, fd: int, typed: bytes | None) -> Archive:
    """Reads the beginning of an archive. Only the last one is compared with --expect, and it alone is proven by it."""
    pipe = None if stat.S_ISREG(os.fstat(fd).st_mode) else _Pipe(fd)
    reader = Reader(pipe or io.FileIO(fd, closefd=False), path)
    opening, secret = openoptions.begin(chainlinks.asking(call, typed), demanded, reader, alone=True)
    header = opening.header(secret)
    manifest = demanded.receipt.manifest if demanded.receipt else ""
    link = chain.link("the archive", header, _LATER, ())._replace(label=path, manifest=manifest)
    head = None if pipe is None else bytes(pipe.data)
    return Archive(path, fd, header, opening.beginning, secret, link, head=head, known=False)


def _check_order(links: Sequence[Link]) -> None:
    """Damaged if archives are no chain in this order, as far as their headers tell."""
    manifests = {one.base.backup_id: one.base.manifest for one in links if one.base}
    try:
        due = chain.order([one._replace(manifest=manifests.get(one.backup_id, "")) for one in links])
    except UsageError as error:
        error.hint = "give the archives of one of them"
        raise
    for ours, theirs in zip(links, due, strict=True):
        if ours.backup_id != theirs.backup_id:
            raise Damaged(
                f"{ours.label} comes where {theirs.label} must come",
                "if one of them is a pipe, the full backup comes first, and each archive after its base",
            )
