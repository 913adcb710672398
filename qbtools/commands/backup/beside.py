"""The files of --id-file and --receipt, which qb-backup create writes in addition to an archive."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType

from qbtools.errors import Damaged
from qbtools.lean import NamedTuple
from qbtools.runs import sidefiles
from qbtools.runs.sidefiles import SideFile, Unwritten


class Paths(NamedTuple):
    """The names of the files. None: the file is not wanted."""

    id_file: str | None = None
    receipt: str | None = None

    def refuse_same(self, others: Mapping[str, str | None]) -> None:
        """Refused if both are the same file, or one of others.

        others: paths (None: no file) by description.
        """
        taken = dict(others)
        for option, path in (("--id-file", self.id_file), ("--receipt", self.receipt)):
            if path is not None:
                sidefiles.refuse_same(option, path, taken)
                taken[f"that of {option}"] = path


class Beside:
    """The open files of one archive. A `with` that ends without finish() leaves no file."""

    def __init__(self, paths: Paths, receipt_wanted: bool = False, largest: int | None = None) -> None:
        """Opens the files. Failed if one of them cannot be written, Refused if there is a receipt already.

        receipt_wanted: the attribute `text` is wanted, even if there is no file for it. largest: the most bytes that
        the file of the archive can have, None if not known.
        """
        self.largest = largest
        self.text = b""
        """The receipt, after finish()."""
        self._id_file = SideFile(paths.id_file, replace=True)
        try:
            self._receipt = SideFile(paths.receipt)
        except BaseException:
            self._id_file.close()
            raise
        self._wanted = receipt_wanted or self._receipt.wanted
        self._pipe: tuple[int, int] | None = None

    def descriptors(self) -> tuple[list[str], list[int]]:
        """Options for qb-seal, and the descriptors that it must inherit for them."""
        if not self._wanted:
            return [], []
        self._pipe = os.pipe()
        theirs = self._pipe[1]
        return [f"--receipt=/dev/fd/{theirs}"], [theirs]

    def finish(self, backup_id: str) -> None:
        """Writes the files when the archive is complete and has its name. Unwritten if a file cannot be written."""
        try:
            if self._pipe is not None:
                self.text = _received(self._pipe[0], backup_id)
                self._receipt.finish(self.text)
        finally:
            self._id_file.finish(f"{backup_id}\n".encode())

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._id_file.close()
        self._receipt.close()
        for fd in self._pipe or ():
            os.close(fd)


def _received(fd: int, backup_id: str) -> bytes:
    """Reads the receipt that qb-seal has written to a pipe. Unwritten if there is none."""
    from qbtools.formats import receipt

    os.set_blocking(fd, False)
    try:
        data = os.read(fd, receipt.MAX_SIZE + 1)
        if receipt.parse(data).backup_id == backup_id:
            return data
    except (BlockingIOError, Damaged):
        pass
    raise Unwritten("the archive is complete, but qb-seal has written no receipt")
