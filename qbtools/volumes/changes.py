"""Maps of what may have changed in a volume, in whole blocks."""

from __future__ import annotations

from qbtools.formats.volumestream import ExtentMap


def add(found: ExtentMap, start: int, end: int, block: int) -> None:
    """Adds the blocks of a range. Calls must be in ascending order."""
    start -= start % block
    found.add(start, end + -end % block - start)


def grown(found: ExtentMap, end: int, block: int) -> ExtentMap:
    """The map with the block in which the volume ended before it grew, because the rest of that is not known."""
    if end == found.size or not end % block:
        return found
    whole = ExtentMap(found.size, 0)
    at: int | None = end - end % block
    for offset, length in found:
        if at is not None and at < offset:
            whole.add(at, block)
            at = None
        whole.add(offset, length)
        if at is not None and at < offset + length:
            at = None
    if at is not None:
        whole.add(at, block)
    return whole
