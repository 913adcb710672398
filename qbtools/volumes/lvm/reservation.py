"""A thin pool's metadata, held still so that thin_dump can read it while the pool is in use.

The kernel (thin-provisioning.rst of Linux: reserve_metadata_snap) keeps one such snapshot a pool, without an owner:
who finds one does not know whose it is. So there is a lock per pool, and in it a record of whoever has asked for it:
the mark of the process, then, once it is known, the block where the snapshot has its root. Only what that record
proves to be of a run that has ended is released; another's is waited for.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from qbtools.errors import Failed
from qbtools.volumes.lvm import dm
from qbtools.volumes.lvm.lock import Lock
from qbtools.volumes.marks import Mark

LOCK_PATIENCE = 300.0
"""Seconds that other runs of ours are waited for; each takes as long as thin_dump does."""

PATIENCE = 20.0
"""Seconds that a reservation of another program's is waited for."""

_PAUSE = 0.2


@contextmanager
def held(pool: int) -> Iterator[None]:
    """The metadata of the pool with that device number is held still for the body.

    Failed if that is not to be had.
    """
    with Lock(f"pool-{dm.uuid(pool).removeprefix('LVM-')}", LOCK_PATIENCE) as lock:
        _recover(pool, lock)
        mark = str(Mark.own())
        asked = False
        try:
            deadline = time.monotonic() + PATIENCE
            while not asked:
                if _root(pool) is None:
                    asked = True
                    lock.write(mark)
                    if not _reserve(pool):
                        asked = False
                        lock.write("")
                elif time.monotonic() > deadline:
                    raise Failed("another program has reserved the metadata of its pool")
                else:
                    time.sleep(_PAUSE)
            lock.write(f"{mark} {_root(pool)}")
            yield
        finally:
            if asked:
                _release(pool, lock)


def _root(pool: int) -> str | None:
    """The block where the reserved snapshot has its root; None if there is none."""
    try:
        target = dm.status(pool)
    except OSError as error:
        raise Failed(f"the pool does not tell its state: {os.strerror(error.errno or 0)}") from error
    # transaction, metadata blocks, data blocks, held root or `-`, mode; in a pool that failed just `Fail`.
    if target.type != "thin-pool" or len(target.parameters) < 4:
        raise Failed("the pool is out of order")
    return None if target.parameters[3] == "-" else target.parameters[3]


def _reserve(pool: int) -> bool:
    """False if somebody was faster."""
    try:
        dm.message(pool, "reserve_metadata_snap")
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise Failed(f"the metadata of its pool cannot be reserved: {os.strerror(error.errno or 0)}") from error
        return False
    return True


def _release(pool: int, lock: Lock) -> None:
    """Releases what is ours, and clears the record."""
    try:
        dm.message(pool, "release_metadata_snap")
    except OSError as error:
        if error.errno != errno.EINVAL:  # there is none
            raise Failed(f"the metadata of its pool cannot be released: {os.strerror(error.errno or 0)}") from error
    lock.write("")


def _recover(pool: int, lock: Lock) -> None:
    """Releases what a run that has ended has left reserved; that is known because we hold its lock."""
    words = lock.read().split()
    mark = Mark.parse(words[0]) if words else None
    if mark is None:
        return
    root = _root(pool)
    if root is None:
        lock.write("")
    elif (mark.dead() or mark == Mark.own()) and words[1:] in ([], [root]):
        _release(pool, lock)
