"""Where the data of a disk lies in the files of its image, as qemu-img knows it, and whether the files have all of it.

Most clusters of an image are plain bytes of a file. To read them there is several times as fast as to get them from
qemu-nbd, which copies each byte two times more. What has no place (a compressed cluster) is read through qemu-nbd.

QEMU sees nothing wrong with a file that has lost its end, as after an interrupted copy: what is missing reads as zeros.
"""

from __future__ import annotations

import io
import json
import os

from qbtools import programs
from qbtools.errors import Damaged, Failed, naming
from qbtools.lean import TYPE_CHECKING
from qbtools.volumes.qemu import server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qbtools.volumes.qemu.chain import Chain, Header

    _Known = tuple[int, int, int, int]

_LONGEST = 1 << 12  # bytes of a line of qemu-img, which has about 120
_TABLE = 0x00FF_FFFF_FFFF_FE00  # the bits of an entry that are the offset of a table
_HINT = "qemu-img check shows what is wrong with it; --state=current reads it as it is"


def check_tables(name: str, chain: Chain) -> None:
    """Damaged if a qcow2 image of the chain has a table behind the end of its file. name: for messages."""
    for fd, header in zip(chain.fds, chain.headers, strict=True):
        if header is not None:
            with naming(f"read {name}"):
                size = os.fstat(fd).st_size
                if any(end > size for end in _table_ends(fd, header)):
                    raise Damaged(f"the image {name} has lost its end: a table is missing", _HINT)


def _table_ends(fd: int, header: Header) -> Iterator[int]:
    at, count = header.tables
    yield at + 8 * count
    for first in range(at, at + 8 * count, 1 << 16):
        part = os.pread(fd, min(1 << 16, at + 8 * count - first), first)
        for begin in range(0, len(part), 8):
            table = int.from_bytes(part[begin : begin + 8], "big") & _TABLE
            if table:
                yield table + header.cluster


def known(name: str, chain: Chain) -> Iterator[_Known]:
    """Parts of the disk: begin, end, and the descriptor and offset where the bytes are. They ascend and do not overlap.

    chain: opened for descriptors from server.FIRST on. What is missing is zeros, or must be read in another way.
    Damaged if a file ends before the data that should be in it. Failed if qemu-img does not tell everything.
    """
    sizes = [os.fstat(fd).st_size for fd in chain.fds]
    short = [0 if header is None else header.cluster - 1 for header in chain.headers]  # QEMU allows that, too
    reached = 0
    for begin, length, depth, offset, zero in _listed(name, chain):
        if chain.has_data_file:  # then the depth of an image in the chain does not say which file it is
            continue
        if begin < reached or depth >= len(sizes):
            raise _odd(name)
        reached = begin + length
        if offset + length > sizes[depth] + short[depth]:
            at = begin + max(sizes[depth] - offset, 0)
            raise Damaged(f"the image {name} has lost its end: byte {at} of the disk is missing", _HINT)
        if not zero and offset + length <= sizes[depth]:
            yield begin, reached, chain.fds[depth], offset


def _listed(name: str, chain: Chain) -> Iterator[tuple[int, int, int, int, bool]]:
    """Begin, length, depth and offset of each part with an offset, and whether it reads as zeros."""
    argv = [server.program("qemu-img"), "map", "--output=json", f"json:{chain.node}"]
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as lines, os.fdopen(theirs, "wb") as output, io.FileIO(os.devnull, "r+") as null:
        with programs.running(argv, null.fileno(), output.fileno(), more=(null.fileno(), *chain.fds)) as child:
            output.close()
            line = b""
            for line in iter(lambda: lines.readline(_LONGEST), b""):
                try:
                    part = json.loads(line.strip().strip(b"[],"))
                    if not part["data"] or part.get("compressed") or "offset" not in part:
                        continue
                    where = part["start"], part["length"], part["depth"], part["offset"], part["zero"]
                except (ValueError, KeyError):
                    raise _odd(name) from None
                yield where
            if child.wait():
                raise server.failure(name, child.said(), None) or Failed(f"{name}: {child.ending()}")
            if not line.endswith(b"]\n"):
                raise _odd(name)


def _odd(name: str) -> Failed:
    return Failed(f"qemu-img map: cannot understand what it prints about {name}")
