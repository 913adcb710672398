"""Volumes of every shape as files, and a comparison of two that are too large to be read completely."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 1 << 16


def filled(path: Path, size: int) -> Path:
    """A file of size bytes of which none is zero."""
    path.write_bytes(random.Random(size).randbytes(size).replace(b"\0", b"\1"))
    return path


def sparse(path: Path, size: int, *spots: tuple[int, int]) -> Path:
    """A file of size bytes with data in (offset, length), holes elsewhere."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, length in spots:
            file.seek(offset)
            file.write(random.Random(offset).randbytes(length).replace(b"\0", b"\1"))
    return path


def shapes(place: Path) -> dict[str, Path]:
    """Sparse volumes, by what is special about them."""
    mib = 1 << 20
    every_other = [(offset, 4096) for offset in range(0, 2 * mib, 8192)]
    far_apart = [(offset, 4096) for offset in range(0, 32 * mib, 131_072)]
    tib = 1 << 40
    return {
        "hole-first": sparse(place / "hole-first", 4 * mib + 1, (3 * mib, mib + 1)),
        "hole-last": sparse(place / "hole-last", 4 * mib + 513, (0, 100_000)),
        "all-hole": sparse(place / "all-hole", 4 * mib + 7),
        "alternating": sparse(place / "alternating", 2 * mib, *every_other),
        "far-apart": sparse(place / "far-apart", 32 * mib, *far_apart),
        "huge": sparse(place / "huge", tib, (0, mib), (tib // 2 + 12_345, mib), (tib - mib, mib)),
    }


def blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """(offset, content) of each block of a file or device that is not all zeros; holes are not read."""
    fd = os.open(path, os.O_RDONLY)
    try:
        at, end = 0, os.lseek(fd, 0, os.SEEK_END)
        while at < end:
            try:
                at = max(at, os.lseek(fd, at, os.SEEK_DATA) // _BLOCK * _BLOCK)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                if error.errno != errno.EINVAL:  # a device: all of it is data
                    raise
            data = os.pread(fd, _BLOCK, at)
            if data.count(0) != len(data):
                yield at, data
            at += len(data)
    finally:
        os.close(fd)


def same(one: Path, other: Path) -> bool:
    """Whether two files or devices have the same size and content."""
    sizes = set()
    for path in (one, other):
        with path.open("rb") as file:
            sizes.add(file.seek(0, os.SEEK_END))
    return len(sizes) == 1 and list(blocks(one)) == list(blocks(other))


def room(path: Path) -> int:
    """Bytes that a file takes on the disk."""
    return path.stat().st_blocks * 512


def unexpected(stderr: bytes) -> list[bytes]:
    """What is said besides the warnings of volumes that Qubes OS does not know, and that are larger than the disk."""
    warnings = b": warning: Qubes OS will not restore ", b": warning: there may not be enough room "
    return [line for line in stderr.splitlines() if not any(warning in line for warning in warnings)]
