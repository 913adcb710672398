"""Lasting snapshots of files: clones with a name, beside the file."""

from __future__ import annotations

import os
import stat

from qbtools.errors import Refused, UsageError
from qbtools.lean import TYPE_CHECKING, suppress
from qbtools.volumes import kernel
from qbtools.volumes.files import clone, leftovers, source
from qbtools.volumes.kind import naming

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qbtools.volumes.marks import Owner


def check(name: str) -> None:
    """UsageError if it is not a regular file; Failed."""
    with naming(f"open {name}"):
        mode = os.stat(name).st_mode
    if not stat.S_ISREG(mode):
        raise UsageError(f"{name} is not a regular file")


class Clone:
    """A file that is ready to be cloned; its data in memory is written to the disk.

    The object may be dropped instead, which closes its descriptors.
    """

    def __init__(self, name: str) -> None:
        """Errors of check(). Refused if its place has no reflinks."""
        check(name)
        self._name = name
        import weakref

        with naming(f"open {name}"):
            self._file = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        self._close_file = weakref.finalize(self, os.close, self._file)
        with naming(f"read {name}"):
            os.fdatasync(self._file)
        try:
            self._copy = clone.prepare(self._file, name)
        except OSError as error:
            raise source.no_snapshot(name, os.strerror(error.errno or 0)) from None
        self._close_copy = weakref.finalize(self, os.close, self._copy)

    def take(self) -> None:
        """The clone has the content of the file from now on."""
        with naming(f"take a snapshot of {self._name}"):
            kernel.clone(self._copy, self._file)

    def give_name(self, mark: Owner) -> str:
        """Its path, beside the file."""
        with naming(f"give a snapshot of {self._name} a name"):
            path = clone.give_name(self._copy, self._name, mark)
        self._close_copy()
        self._close_file()
        return path


def taken(clones: Sequence[Clone], mark: Owner) -> list[str]:
    """Takes all of them at one point in time. Returns their paths."""
    made: list[str] = []
    try:
        for each in clones:
            each.take()
        for each in clones:
            made.append(each.give_name(mark))
    except BaseException:
        for path in made:
            with suppress(OSError):
                os.unlink(path)
        raise
    return made


def release(spec: str, path: str) -> None:
    """Removes a result of taken(). Refused if it has no mark."""
    if leftovers.mark_of(os.path.basename(path)) is None:
        raise Refused(f"{spec} has no mark of qbtools")
    with naming(f"remove {spec}"):
        os.unlink(path)
