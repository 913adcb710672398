"""Finds where a clone of a file may differ from an older clone, without reading: by the places of both on the disk.

The file system does not overwrite what several files share, nor what nobody but us can write. So as long as both clones
exist, what is at the same place on the disk is the same. A balance or a defragmentation may move data, and the place is
used for something else later. So the map of the older clone is read before and after that of the newer one: a place
that it has both times was its own all the time.

Only plain extents count. The place of a compressed extent does not tell which part of it a file has, and some extents
have no place yet.
"""

from __future__ import annotations

import os

from qbtools.errors import Failed
from qbtools.formats.volumestream import ExtentMap
from qbtools.lean import TYPE_CHECKING
from qbtools.volumes import changes, inuse, kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

    Piece = tuple[int, int, int | str]

"""Start and end of a piece of a file, and where it is: the distance between its places on the disk and in the file."""

_FILE_SYSTEMS = ("btrfs", "xfs")
_LAST, _MERGED, _SHARED = 0x1, 0x1000, 0x2000  # FIEMAP_EXTENT_*
_HOLE, _ODD = "hole", "odd"


def known(fd: int) -> bool:
    """Whether a file is on a file system whose maps can be compared."""
    return inuse.file_system(fd) in _FILE_SYSTEMS


def changed(old: int, new: int, block: int) -> ExtentMap:
    """Everything that may differ between two clones, in whole blocks. old must not be larger than new.

    Nobody writes to either. Failed, with the reason, if this cannot be known. OSError.
    """
    before, after = os.fstat(old), os.fstat(new)
    if before.st_dev != after.st_dev or not known(old) or not known(new):
        raise Failed("the snapshot is not on the same btrfs or xfs file system")
    if kernel.on_realtime_device(old) or kernel.on_realtime_device(new):
        raise Failed("the file system has a realtime device")
    size = after.st_size
    found = ExtentMap(size, 0)
    first = _digest(old, size)
    for start, end in _differences(_pieces(old, size), _pieces(new, size)):
        changes.add(found, start, end, block)
    if _digest(old, size) != first:
        raise Failed("the file system is moving data")
    return changes.grown(found, before.st_size, block)


def _pieces(fd: int, size: int) -> Iterator[Piece]:
    """The pieces of a file up to size; behind its end there is a hole."""
    at, extents = 0, kernel.file_extents(fd, 0)
    own = min(os.fstat(fd).st_size, size)
    while extents:
        for logical, physical, length, flags in extents:
            start, end = max(logical, at), min(logical + length, own)
            if at < min(start, own):
                yield at, min(start, own), _HOLE
            if start < end:
                plain = flags & _SHARED and not flags & ~(_LAST | _MERGED | _SHARED)
                yield start, end, physical - logical if plain else _ODD
            at = max(at, end)
        if extents[-1][3] & _LAST or at >= own:
            break
        if logical + length != at:
            raise Failed("the file system has no map that is in order")
        extents = kernel.file_extents(fd, at)
    if at < size:
        yield at, size, _HOLE


def _differences(old: Iterator[Piece], new: Iterator[Piece]) -> Iterator[tuple[int, int]]:
    """Start and end of what is not at the same place; both cover the same bytes."""
    where: int | str = _ODD  # of the piece of old around the current place, and its end
    end = 0
    for start, stop, place in new:
        while start < stop:
            if end <= start:
                _, end, where = next(old)
                continue
            part = min(stop, end)
            if where != place or place == _ODD:
                yield start, part
            start = part


def _digest(fd: int, size: int) -> bytes:
    import hashlib

    found = hashlib.sha256()
    for piece in _pieces(fd, size):
        found.update(repr(piece).encode())
    return found.digest()
