"""Reserves the metadata of a thin pool, so that thin_dump can read it while the pool is in use.

The kernel (thin-provisioning.rst of Linux: reserve_metadata_snap) keeps one such snapshot for each pool, and does not
record its owner. So there is a lock for each pool, with a record of the owner: the mark of the process and, when it is
known, the root block of the snapshot. A reservation is only released if the record proves that it belongs to an ended
run. Otherwise we wait for it.
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
"""Seconds to wait for other runs of qbtools; each takes as long as thin_dump."""

PATIENCE = 20.0
"""Seconds to wait for the reservation of another program."""

_PAUSE = 0.2


@contextmanager
def held(pool: int) -> Iterator[None]:
    """The metadata of the pool with that device number is reserved while the body runs.

    Failed if it cannot be reserved.
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
    """The root block of the reserved snapshot; None if there is none."""
    try:
        target = dm.status(pool)
    except OSError as error:
        raise Failed(f"cannot read the state of the pool: {os.strerror(error.errno or 0)}") from error
    # transaction, metadata blocks, data blocks, held root or `-`, mode; only `Fail` for a failed pool.
    if target.type != "thin-pool" or len(target.parameters) < 4:
        raise Failed("the pool has failed")
    return None if target.parameters[3] == "-" else target.parameters[3]


def _reserve(pool: int) -> bool:
    """False if another program was faster."""
    try:
        dm.message(pool, "reserve_metadata_snap")
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise Failed(f"the metadata of its pool cannot be reserved: {os.strerror(error.errno or 0)}") from error
        return False
    return True


def _release(pool: int, lock: Lock) -> None:
    """Releases our reservation and clears the record."""
    try:
        dm.message(pool, "release_metadata_snap")
    except OSError as error:
        if error.errno != errno.EINVAL:  # there is none
            raise Failed(f"the metadata of its pool cannot be released: {os.strerror(error.errno or 0)}") from error
    lock.write("")


def _recover(pool: int, lock: Lock) -> None:
    """Releases the reservation of an ended run. The run has ended, because we hold its lock."""
    words = lock.read().split()
    mark = Mark.parse(words[0]) if words else None
    if mark is None:
        return
    root = _root(pool)
    if root is None:
        lock.write("")
    elif (mark.dead() or mark == Mark.own()) and words[1:] in ([], [root]):
        _release(pool, lock)
