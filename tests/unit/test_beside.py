"""The files that qb-backup create writes beside an archive: a receipt that qb-seal has not told, or not all of it."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pytest

from qbtools import storing
from qbtools.commands.backup import save
from qbtools.commands.backup.beside import Beside, Paths
from qbtools.commands.cli import Invocation
from qbtools.errors import Failed
from qbtools.formats import receipt

ID, OTHER = "20261124T055255-0123456789abcdef", "20261124T055255-fedcba9876543210"
GOOD = receipt.serialise(receipt.Receipt(ID, "a" * 64, "b" * 64, "c" * 64, 7))


def finished(told: bytes, place: Path) -> None:
    """What qb-seal tells arrives in the pipe; then the archive is complete."""
    paths = Paths(str(place / "id"), str(place / "receipt"))
    with Beside(paths) as files:
        words, (fd,) = files.descriptors()
        assert words == [f"--receipt=/dev/fd/{fd}"]
        os.write(fd, told)
        assert os.listdir(place) != []  # they can be written
        files.finish(ID)


def test_all_is_told(tmp_path: Path) -> None:
    finished(GOOD, tmp_path)
    assert (tmp_path / "receipt").read_bytes() == GOOD
    assert (tmp_path / "id").read_text() == f"{ID}\n"


@pytest.mark.parametrize("told", [b"", GOOD[:-4], GOOD.replace(ID.encode(), OTHER.encode()), GOOD * 2])
def test_it_is_not_told(told: bytes, tmp_path: Path) -> None:
    """There is no receipt; the archive is complete, so its ID is kept."""
    with pytest.raises(Failed, match="^the archive is complete, but qb-seal has written no receipt$"):
        finished(told, tmp_path)
    assert os.listdir(tmp_path) == ["id"]


def test_nothing_is_left_of_a_run_that_fails(tmp_path: Path) -> None:
    with Beside(Paths(str(tmp_path / "id"), str(tmp_path / "receipt"))) as files:
        files.descriptors()
    assert os.listdir(tmp_path) == []


def test_the_archive_is_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before anything is read. How large it can be is then known too."""
    tried: list[str] = []

    class Tried(storing.PartialFile):
        def __init__(self, path: str, overwrite: bool, keep: bool) -> None:
            tried.append(path)
            super().__init__(path, overwrite, keep)

    monkeypatch.setattr(storing, "PartialFile", Tried)
    path = str(tmp_path / "a.qb")
    call = Invocation("qb-backup", defaultdict(lambda: None, {"--output": path, "VOLUME": []}), frozenset())
    with save.beside(call) as files:
        assert files.largest is not None and files.largest >= 1 << 30
        for total in (files.largest, files.largest + 1):
            save._warn_of_limit(call, path, total, files.largest)
    assert (tried, os.listdir(tmp_path)) == ([path], [])
    assert capfd.readouterr().err.count(f"{path} cannot grow to the {total} bytes") == 1
