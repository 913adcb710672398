"""Snapshots of our own: active, read-only and marked from their first moment on, removed whatever happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from qbtools.errors import Failed, QbError
from qbtools.volumes import marks
from qbtools.volumes.lvm import tools
from qbtools.volumes.lvm.facts import Volume
from qbtools.volumes.marks import Mark

_ATTEMPTS, _PAUSE = 10, 0.5  # whoever looks at a device (udev) keeps lvm from removing it for a moment


def take(origin: Volume, mark: Mark, cow: str) -> str:
    """Takes a snapshot; returns it as GROUP/NAME. Failed if lvm does not make it, and nothing is left then.

    cow: room for what is overwritten meanwhile, as SourceOptions has it; a thin volume needs none.
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
    """Removes a volume of ours, GROUP/NAME. Failed if it is still there after some seconds of trying.

    A signal that ends us meanwhile does not end this.
    """
    try:
        _remove(full, attempts)
    except QbError:
        raise
    except BaseException:
        with suppress(QbError):
            _remove(full, attempts)
        raise


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


def remove_dead(volumes: Iterable[Volume], note: Callable[[str], None], warn: Callable[[str], None]) -> None:
    """Removes what runs that have ended have left: snapshots and half-made volumes. Nobody else's, ever."""
    for volume in volumes:
        if volume.mark is not None and volume.mark.dead():
            note(f"removing {volume.full}, left by a run that has ended")
            try:
                remove(volume.full, attempts=2)  # whoever comes next tries again
            except Failed as error:
                warn(f"{volume.full}, left by a run that has ended, cannot be removed: {error.message}")
