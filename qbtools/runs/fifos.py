"""Directories of a run in TMPDIR, for FIFOs and for files that its stages lock. Each has a mark: the next run removes
what a killed run has left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from qbtools.errors import naming
from qbtools.volumes.marks import Mark

_PREFIX = "qb-streams."
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def directory() -> Iterator[str]:
    """The path of a new directory of this user alone, which is removed at the end. Failed if it cannot be made."""
    place = os.path.abspath(os.environ.get("TMPDIR") or "/tmp")
    path = os.path.join(place, f"{_PREFIX}{Mark.own()}.{os.urandom(4).hex()}")
    try:
        with naming(f"create a directory in {place}"):
            _remove_dead(place)
            os.mkdir(path, 0o700)
        yield path
    finally:
        _remove(path)


def _remove_dead(place: str) -> None:
    """Removes what ended runs of this user have left."""
    for name in os.listdir(place):
        if name.startswith(_PREFIX):
            mark = Mark.parse(name.removeprefix(_PREFIX).partition(".")[0])
            if mark is not None and mark.dead():
                _remove(os.path.join(place, name))


def _remove(path: str) -> None:
    """Removes such a directory if it is ours. What fails is left to the next run."""
    with suppress(OSError):  # without free descriptors only an empty one can be removed
        fd = os.open(path, _FLAGS)
        try:
            if os.fstat(fd).st_uid != os.geteuid():
                return
            for name in os.listdir(fd):
                os.unlink(name, dir_fd=fd)
        finally:
            os.close(fd)
    with suppress(OSError):
        os.rmdir(path)
