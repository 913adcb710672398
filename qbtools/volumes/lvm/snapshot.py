"""Snapshots of ours: active, read-only and with a mark from the beginning. They are removed in every case."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from qbtools.errors import Failed, QbError
from qbtools.lean import TYPE_CHECKING
from qbtools.volumes import marks
from qbtools.volumes.lvm import tools
from qbtools.volumes.lvm.facts import Volume
from qbtools.volumes.problems import Problems

if TYPE_CHECKING:
    from qbtools.volumes.marks import Owner

_ATTEMPTS, _PAUSE = 10, 0.5  # while udev reads a device, lvm cannot remove it


def take(origin: Volume, mark: Owner, cow: str) -> str:
    """Takes a snapshot and returns it as GROUP/NAME. Failed if lvm cannot create it; then nothing is left.

    cow: room for blocks that are overwritten meanwhile, as in SourceOptions; a thin volume needs none.
    """
    full = f"{origin.group}/{marks.temporary_name()}"
    how = ["-kn"] if origin.thin else ["-l", f"{cow}ORIGIN"] if cow.endswith("%") else ["-L", f"{cow}b"]
    try:
        tools.lvm(
            "lvcreate", "-qq", "-y", "-s", "-pr", *how, "--addtag", str(mark), "-n", full.split("/")[1], origin.full
        )
    except BaseException:
        with suppress(QbError):
            remove(full)
        raise
    return full


def remove(full: str, attempts: int = _ATTEMPTS) -> None:
    """Removes a volume of ours, GROUP/NAME. Failed if it still exists after some seconds of trying.

    A signal that ends us meanwhile does not interrupt this.
    """
    try:
        _remove(full, attempts)
    except QbError:
        raise
    except BaseException:
        with suppress(QbError):
            _remove(full, attempts)
        raise


def remove_all(names: Sequence[str]) -> None:
    """Removes several, in one step if possible, otherwise as many as it can. Raises the first error at the end."""
    if len(names) > 1:
        with suppress(Failed):
            tools.lvm("lvremove", "-qq", "-f", "-y", *names)
            return
    problems = Problems()
    for full in names:
        with problems:
            remove(full)
    problems.end()


def _remove(full: str, attempts: int) -> None:
    for left in reversed(range(attempts)):
        try:
            tools.lvm("lvremove", "-qq", "-f", "-y", full)
            return
        except Failed:
            if not _is_there(full):
                return
            if not left:
                raise
            time.sleep(_PAUSE)


def _is_there(full: str) -> bool:
    try:
        return bool(tools.report("lvs", "lv_name", full))
    except Failed:
        return False


def remove_dead(volumes: Iterable[Volume], note: Callable[[str], None], warn: Callable[[str], None]) -> bool:
    """Removes leftovers of ended runs: snapshots and incomplete volumes of qbtools, never anything else.

    Returns whether there were any.
    """
    found = False
    for volume in volumes:
        if volume.mark is not None and volume.mark.dead():
            found = True
            note(f"removing {volume.full}, left by a run that has ended")
            try:
                remove(volume.full, attempts=2)  # the next run tries again
            except Failed as error:
                warn(f"{volume.full}, left by a run that has ended, cannot be removed: {error.message}")
    return found
