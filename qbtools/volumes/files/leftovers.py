"""Files of qbtools beside the volumes: lasting snapshots, and leftovers of killed runs.

Such a file is called `.MARK.XXXXXXXX`, X a hexadecimal digit; see marks.py for MARK. Files with other names are never
removed.
"""

from __future__ import annotations

import os

from qbtools.lean import TYPE_CHECKING, Pattern, suppress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qbtools.volumes.marks import Owner

_NAME = Pattern(r"\.(qbtools-[0-9A-Za-z-]+)\.[0-9a-f]{8}")


def new_name(mark: Owner) -> str:
    """A unique name for a file with the mark."""
    return f".{mark}.{os.urandom(4).hex()}"


def mark_of(name: str) -> Owner | None:
    """The mark in the name of a file (without its directory); None if there is none."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    from qbtools.volumes import marks

    return marks.parse(match[1])


def in_directory(directory: str | int) -> Iterator[tuple[str, Owner]]:
    """Name and mark of each such file in a directory. OSError if it cannot be read."""
    for name in sorted(name for name in os.listdir(directory) if name.startswith(".qbtools-")):
        mark = mark_of(name)
        if mark is not None:
            yield name, mark


def remove_dead(directory: int) -> None:
    """Removes leftovers of ended runs from a directory (its descriptor), if we have the permission."""
    with suppress(OSError):
        for name, mark in in_directory(directory):
            if mark.dead():
                with suppress(OSError):
                    os.unlink(name, dir_fd=directory)
