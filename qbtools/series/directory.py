"""The directory of a series, on the machine that saves. Its mode is 0700, and only its owner uses it.

    ledger          see ledger.py; it is replaced by one rename
    lock, saving    locked while the ledger is used, and while a run saves
    pending/ID/     a run that is not confirmed
    indexes/ID/     the same after it was confirmed, for the base and the last full archive
    kept/ID         which snapshots are kept of the volumes of an archive, see keeping.py

The directory of a run has its text in `run` (see runtext.py), the receipt of its archive in `receipt`, and an index
for each volume.
Confirming is the rename of the ledger. What the ledger says decides, so everything else is tidied up before or after.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from qbtools import directories
from qbtools.descriptors import lock_within, write_fd
from qbtools.errors import Damaged, QbError, Refused, UsageError, naming
from qbtools.formats import header
from qbtools.series import ledger as ledgers
from qbtools.series import place, runtext
from qbtools.series.ledger import Ledger
from qbtools.series.runtext import Run
from qbtools.streams import Reader

PATIENCE = 60.0
"""Seconds to wait for the lock, which nothing holds for longer than a moment."""

UNCONFIRMED = 8
"""A run can be confirmed until so many later runs have begun."""

RECEIPT = "receipt"
RECORDS = "records"

_SAFE = os.O_NOFOLLOW | os.O_CLOEXEC
_OURS = frozenset(("ledger", "ledger.new", "lock", "saving", "pending", "indexes", "kept"))


class Series:
    """A series. All paths in it are absolute."""

    def __init__(self, path: str, create: bool = False) -> None:
        """create: make the directory if it does not exist. Refused if others could read or change it, or if it is the
        directory of something else; Failed if it does not exist."""
        self.path = os.path.realpath(path)
        self._ledger = os.path.join(self.path, "ledger")
        self._pending = os.path.join(self.path, "pending")
        self._indexes = os.path.join(self.path, "indexes")
        with naming(f"use {path} as a series"):
            if create:
                with suppress(FileExistsError):
                    os.mkdir(self.path, 0o700)
            found = os.stat(self.path)
            if not stat.S_ISDIR(found.st_mode):
                raise Refused(f"{path} is not a directory")
            if found.st_uid != os.geteuid():
                raise Refused(f"{path} belongs to another user")
            names = set(os.listdir(self.path))
        if "ledger" not in names and (not create or names - _OURS):
            raise Refused(f"{path} is not the directory of a series: it has no ledger")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise Refused(f"{path} can be read or changed by others", "chmod 700 protects it")

    @contextmanager
    def saving(self) -> Iterator[None]:
        """While the body runs, no other run saves. Refused if one does."""
        with self._locked("saving", 0.0):
            yield

    @contextmanager
    def locked(self) -> Iterator[Ledger]:
        """The ledger. While the body runs, nothing else uses it. Damaged if it is malformed."""
        with self._locked("lock", PATIENCE):
            yield self._read()

    @contextmanager
    def _locked(self, name: str, patience: float) -> Iterator[None]:
        with naming(f"lock {self.path}/{name}"):
            fd = os.open(os.path.join(self.path, name), os.O_RDWR | os.O_CREAT | _SAFE, 0o600)
        try:
            if not lock_within(fd, patience):
                raise Refused(f"another run is using the series {self.path}")
            yield
        finally:
            os.close(fd)

    def _read(self) -> Ledger:
        with naming(f"read {self._ledger}"):
            try:
                file = io.FileIO(os.open(self._ledger, os.O_RDONLY | _SAFE))
            except FileNotFoundError:
                return Ledger()
        with file:
            data = Reader(file, self._ledger).read_up_to(ledgers.MAX_SIZE + 1)
            try:
                found = ledgers.parse(data, self._ledger)
            except Damaged as error:
                error.hint = "with another directory a new series begins, with a full archive"
                raise
            self.copied = found.place != place.of(file.fileno())
        if self.copied:
            found.distrust()
        return found

    copied = False
    """Whether the ledger was copied or restored from a backup. Then its base was forgotten: archives that it names may
    be missing, and others may exist."""

    def write(self, ledger: Ledger) -> None:
        """Replaces the ledger by one rename. Only to be called in locked()."""
        with naming(f"write to {self._ledger}"):
            fd = _create(f"{self._ledger}.new")
            try:
                ledger.place = place.of(fd)
                data = ledgers.serialise(ledger)
                ledgers.parse(data, self._ledger)  # what cannot be read must not be written
                write_fd(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(f"{self._ledger}.new", self._ledger)
            _flush(self.path)

    def folder(self, backup_id: str) -> str:
        """The directory of a run, whether it is confirmed or not."""
        found = os.path.join(self._indexes, backup_id)
        return found if os.path.isdir(found) else os.path.join(self._pending, backup_id)

    def run_of(self, backup_id: str) -> Run:
        """The text of a run. Failed if it does not exist, Damaged if it is malformed or that of another run."""
        path = os.path.join(self.folder(backup_id), "run")
        with naming(f"read {path}"), io.FileIO(os.open(path, os.O_RDONLY | _SAFE)) as file:
            found = runtext.parse(Reader(file, path).read_up_to(runtext.MAX_SIZE + 1), path)
        if found.backup_id != backup_id:
            raise Damaged(f"{path} is that of another run")
        return found

    def pending(self) -> dict[str, Run | None]:
        """The runs that are not confirmed, by their IDs; None if the text of the run cannot be used."""
        found: dict[str, Run | None] = {}
        for name in _names(self._pending):
            if header.backup_id_problem(name) is None:
                try:
                    found[name] = self.run_of(name)
                except QbError:
                    found[name] = None
        return found

    def put_run(self, run: Run) -> None:
        """Writes the text of a run. Its directory is made if it does not exist."""
        folder = os.path.join(self._pending, run.backup_id)
        with naming(f"write to {folder}"):
            for path in (self._pending, self._indexes, folder):
                with suppress(FileExistsError):
                    os.mkdir(path, 0o700)
                    _flush(os.path.dirname(path))
            self.put(run.backup_id, "run", runtext.serialise(run))

    def put(self, backup_id: str, name: str, data: bytes) -> None:
        """Writes a file of a run that is not confirmed. It gets its name when it is on stable storage."""
        self.write_file(os.path.join(self._pending, backup_id), name, data)

    def write_file(self, folder: str, name: str, data: bytes) -> None:
        """The same for any directory of the series."""
        path = os.path.join(folder, name)
        with naming(f"write to {path}"):
            fd = _create(f"{path}.new")
            try:
                write_fd(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(f"{path}.new", path)
            _flush(folder)

    def confirm(self, ledger: Ledger, backup_id: str) -> bool:
        """Writes the ledger with an archive that is known to be stored. Only to be called in locked().

        Returns whether the archive is the base now. UsageError for an unknown ID. Refused for a run that has not
        ended, for an archive whose base is not kept, and if the ledger is older than the run. Nothing happens if it is
        already confirmed.
        """
        if backup_id not in ledger.archives:
            if header.backup_id_problem(backup_id) or not os.path.isdir(os.path.join(self._pending, backup_id)):
                raise UsageError(f"{self.path} has no archive {backup_id}", "qb-series list shows all")
            run = self.run_of(backup_id)
            if not run.complete:
                raise Refused(f"the archive {backup_id} is not complete")
            if run.number >= ledger.next or any(run.number == one.number for one in ledger.archives.values()):
                raise Refused(f"{self.path} has an older ledger, which does not know the run of {backup_id}")
            ledger.confirm(run.entry())
            self.write(ledger)
        self.tidy(ledger)
        return ledger.base == backup_id

    def tidy(self, ledger: Ledger) -> None:
        """Moves and removes directories of runs as the ledger says. What fails is left to the next time."""
        needed = {ledger.base, ledger.full}
        for run in self.pending().values():
            if run is not None and not run.complete:
                needed.add(run.base)  # it is being saved
        with suppress(OSError):
            for name in set(_names(self._pending)).intersection(ledger.archives):
                if name in needed:
                    os.rename(os.path.join(self._pending, name), os.path.join(self._indexes, name))
                else:
                    _remove(os.path.join(self._pending, name))
            for name in set(_names(self._indexes)).difference(needed):
                _remove(os.path.join(self._indexes, name))

    def clean(self, ledger: Ledger) -> list[str]:
        """Removes the runs that died, and those that are too old to be confirmed. Returns the IDs of the latter.

        Only to be called in saving() and locked().
        """
        old = []
        for name, run in self.pending().items():
            if run is None or not run.complete:
                self._drop(name)
            elif name not in ledger.archives and run.number + UNCONFIRMED < ledger.next:
                self._drop(name)
                old.append(name)
        self.tidy(ledger)
        return old

    def abandon(self, backup_id: str) -> None:
        """Removes a run that has failed, unless its archive is confirmed: a signal may come just after that."""
        with suppress(QbError), self.locked() as ledger:  # what is left, the next run removes
            if backup_id not in ledger.archives:
                self._drop(backup_id)

    def _drop(self, backup_id: str) -> None:
        with suppress(OSError):
            _remove(os.path.join(self._pending, backup_id))


def index_name(name: str) -> str:
    """The file of the index of a volume, in the directory of a run. name: `vmN/VOLUME.img`."""
    return name.replace("/", ".") + ".index"


def _create(path: str) -> int:
    with suppress(FileNotFoundError):
        os.unlink(path)  # of a run that died
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE, 0o600)


def _flush(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        directories.flush(fd)
    finally:
        os.close(fd)


def _names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        return []


def _remove(path: str) -> None:
    """Removes the directory of a run; its text first, so that nothing takes the rest for a run."""
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(path, "run"))
    for name in _names(path):
        os.unlink(os.path.join(path, name))
    os.rmdir(path)
