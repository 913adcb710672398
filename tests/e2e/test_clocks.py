"""An archive made under a wrong clock is read back, by qb-backup and by GNU tar."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support import ROOT, bash, missing, run

SECRET = {"QB_PASSPHRASE_COMMAND": "echo clocks"}
YEARS = (1901, 1970, 2107, 2242, 2243, 2500)
"""Those where a sign, 32 bits, the digits of a tar header, or what Python can represent begin or end."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Preloaded, it lets every program see the time QB_TEST_CLOCK."""
    if shutil.which("gcc") is None:
        missing("the program gcc is not there")
    found = tmp_path_factory.mktemp("clock") / "clock.so"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", found, ROOT / "tests/clock.c"], check=True)
    return found


def seconds(year: int) -> int:
    return int((datetime.datetime(year, 6, 1) - datetime.datetime(1970, 1, 1)).total_seconds())


@pytest.mark.parametrize("year", YEARS)
def test_a_wrong_clock(library: Path, tmp_path: Path, year: int) -> None:
    data = os.urandom(70_000)
    (tmp_path / "a.img").write_bytes(data)
    clock = {"LD_PRELOAD": str(library), "QB_TEST_CLOCK": str(seconds(year))}
    words = ["--logn", "10", "--chunk-size", "64K", "-o", "a.qb", "work.mail:root=a.img"]
    made = bash(f"cd {tmp_path}; qb-backup create -q {' '.join(words)}", **SECRET, **clock)
    assert (made.returncode, made.stderr) == (0, b"")
    listed = bash(f"cd {tmp_path}; tar -tvf a.qb")
    assert (listed.returncode, listed.stderr) == (0, b"")
    assert bash(f"cd {tmp_path}; mkdir x; tar -C x -xf a.qb").returncode == 0
    if year in (1901, 2500):
        assert run("qb-backup", "verify", "-q", tmp_path / "a.qb", **SECRET, **clock).returncode == 0
    done = run("qb-backup", "restore", "-q", "--to", tmp_path / "r", tmp_path / "a.qb", **SECRET)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "r/work.mail/root.img").read_bytes() == data
    header = bash(f"cd {tmp_path}; tar -xOf a.qb backup-header").stdout.decode()
    assert f"backup-id={min(year, 2262)}0" in header


@pytest.mark.parametrize("year", YEARS)
def test_a_home_with_files_of_any_time(tmp_path: Path, year: int) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "file").write_bytes(b"data")
    os.utime(home / "file", (seconds(year), seconds(year)))
    done = bash(f"cd {tmp_path}; qb-tree home dom0-home/u | qb-tree --extract r dom0-home/u")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "r/file").stat().st_mtime == (home / "file").stat().st_mtime


def test_a_series_whose_clock_is_set_back(library: Path, tmp_path: Path) -> None:
    """The base is the archive of the last run, whatever time it was."""
    (tmp_path / "a.img").write_bytes(os.urandom(70_000))
    bases, ids = [], []
    for year in (2026, 2500, 1901, 1970):
        words = ["--logn", "10", "--series", "series", "--id-file", "id", "-o", f"{year}.qb", "work:root=a.img"]
        clock = {"LD_PRELOAD": str(library), "QB_TEST_CLOCK": str(seconds(year))}
        made = bash(f"cd {tmp_path}; qb-backup create -q {' '.join(words)}", **SECRET, **clock)
        assert (made.returncode, made.stderr) == (0, b"")
        ids.append((tmp_path / "id").read_text().strip())
        listed = bash(f"cd {tmp_path}; qb-series list series | tail -n 1")
        bases.append(listed.stdout.decode().split("\t")[2])
    assert bases == ["-", *ids[:-1]]
    forgotten = bash(f"cd {tmp_path}; qb-series forget --dry-run --keep-last 1 series 2>&1")
    assert forgotten.stdout.decode().startswith(f"qb-series: keeps {ids[-1]}: last, the base of the next increment\n")
