"""The files of qb-delta: the index of the base, the new index, and its confirmation as a base."""

from __future__ import annotations

import io
import os
import stat

from qbtools.commands.cli import Invocation
from qbtools.errors import Damaged, QbError, Refused, UsageError, naming
from qbtools.formats import blockindex, deltastream
from qbtools.formats.blockindex import HEAD, Head, IndexReader
from qbtools.formats.deltastream import Base
from qbtools.lean import TYPE_CHECKING
from qbtools.streams import Reader

if TYPE_CHECKING:
    from qbtools.formats.manifest import FileRecord
    from qbtools.storing import PartialFile

BLOCK = 1 << 16
"""Bytes of a block if nothing else is said."""

AUTO = "auto"
"""As a size of blocks: that of the base, otherwise by_size()."""

_LEAST = 1 << 13
_MANY = 1 << 24  # blocks: an index of 256 MiB


def by_size(size: int) -> int:
    """Bytes of a block for a volume of size bytes: 8K, or up to 64K if its index would have more than 256 MiB.

    Small blocks make small increments, which are faster to restore.
    """
    block = _LEAST
    while block < BLOCK and size > block * _MANY:
        block *= 2
    return block


def check_options(call: Invocation) -> int | None:
    """UsageError for options that do not fit together; returns the size of blocks, None for AUTO or no --block."""
    index, backup_id, name = (call.options[option] for option in ("--index", "--id", "--name"))
    if index is not None and (backup_id is None or name is None):
        raise UsageError("--index needs --id and --name")
    if index is None and (backup_id is not None or call.options["--overwrite"]):
        raise UsageError(f"{'--overwrite' if backup_id is None else '--id'} needs --index")
    if backup_id is not None and (problem := deltastream.base_problem(backup_id)):
        raise UsageError(f"--id: {problem}")
    if name is not None and (problem := blockindex.volume_name_problem(name)):
        raise UsageError(f"{name}: {problem}")
    if call.options["RECORDS"] is not None:
        raise UsageError("RECORDS goes with --confirm only")
    if call.options["--block"] in (None, AUTO):
        return None
    block = call.size("--block")
    if problem := blockindex.block_problem(block):
        raise UsageError(f"--block: {problem}")
    return block


def base(call: Invocation, block: int | None) -> IndexReader | None:
    """The index of the base, from its first digest on; None, with a warning, if the volume must be saved whole.

    All of it is checked here, for when the first byte was written it is too late to save the volume whole.
    """
    path = call.options["--base"]
    if path is None:
        return None
    try:
        file = _open(path, os.O_RDONLY)
        found = IndexReader(Reader(file, path))
        _check_fits(found.head, path, block, call.options["--name"])
        found.check()
        file.seek(0)
    except OSError as error:
        call.warn(f"cannot read {path}: {os.strerror(error.errno or 0)}: the volume is saved whole")
        return None
    except QbError as error:
        call.warn(f"{error.message}: the volume is saved whole")
        return None
    if found.head.base.backup_id == call.options["--id"]:
        raise UsageError(f"--id: {path} is the index of the same backup", "qb-header id makes a new ID")
    return IndexReader(Reader(file, path))


def head(path: str) -> Head:
    """What the index of a base says of its volume; its digests are not checked. Damaged if it can be no base."""
    with naming(f"read {path}"), _open(path, os.O_RDONLY) as file:
        found = blockindex.parse(Reader(file, path).read_up_to(HEAD), path)
    _check_fits(found, path, None, None)
    return found


def _open(path: str, how: int) -> io.FileIO:
    file = io.FileIO(os.open(path, how | os.O_NONBLOCK | os.O_CLOEXEC), "r+" if how == os.O_RDWR else "r")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise Damaged(f"{path} is not a regular file")
    return file


def _check_fits(head: Head, path: str, block: int | None, name: str | None) -> None:
    if not head.base.digest:
        raise Damaged(f"the index {path} was not confirmed")
    if name is not None and head.name != name:
        raise Damaged(f"the index {path} is of the volume {head.name}, not of {name}")
    if block is not None and head.block != block:
        raise Damaged(f"the index {path} has blocks of {head.block} bytes, not of {block}")


def new(call: Invocation) -> PartialFile:
    """The new index: it gets its name when it is complete."""
    from qbtools import storing

    return storing.PartialFile(call.options["--index"], bool(call.options["--overwrite"]), keep=False)


def confirm(call: Invocation) -> None:
    """Writes the digest of the manifest line into an index: one write, so that it is there or not."""
    path = call.options["--confirm"]
    others = ("--base", "--index", "--id", "--name", "--block", "--overwrite")
    if wrong := [option for option in others if call.options[option]]:
        raise UsageError(f"{wrong[0]} does not go with --confirm")
    with naming(f"open {path}"):
        file = _open(path, os.O_RDWR)
    head = blockindex.parse(Reader(file, path).read_up_to(HEAD), path)
    digest = _line_digest(call, head)
    if head.base.digest not in ("", digest):
        raise Refused(f"the index {path} was confirmed for another archive of the backup {head.base.backup_id}")
    data = blockindex.serialise(head._replace(base=Base(head.base.backup_id, digest)))
    with naming(f"write to {path}"):
        os.pwrite(file.fileno(), data, 0)
        os.fsync(file.fileno())


def _line_digest(call: Invocation, head: Head) -> str:
    """SHA-256 of the line that the volume of an index has in the manifest of its backup."""
    from qbtools.formats import manifest

    reader = call.input(call.options["RECORDS"])
    found: FileRecord | None = None
    number = 0
    while line := reader.read_line(manifest.MAX_LINE):
        number += 1
        parsed = manifest.from_line(line)
        if parsed is None:
            raise Damaged(f"line {number} of {reader.name} is not a record of a sealed file")
        if parsed[0] == head.base.backup_id and parsed[1].name == head.name:
            if found is not None:
                raise Damaged(f"{reader.name} has two records of {head.name}")
            found = parsed[1]
    if found is None or found.failed:
        what = "no record of" if found is None else "a failure for"
        raise Damaged(f"{reader.name} has {what} {head.name} in the backup {head.base.backup_id}")
    return manifest.line_digest(found)
