"""qb-volwrite: what can be created, replaced, shrunk; used targets are not touched, leftovers are removed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from devices import file_system, loop, volume_stream
from support import environment, missing, need, run

from qbtools.volumes.marks import Mark

MIB = 1 << 20
SIZE = 8 * MIB
STREAM = volume_stream(SIZE, (MIB, b"x" * 4096))
VOLUME = bytes(MIB) + b"x" * 4096 + bytes(SIZE - MIB - 4096)


def failed(done: subprocess.CompletedProcess[bytes], status: int, message: str) -> None:
    """It ended with status and a line of error."""
    assert (done.returncode, done.stdout) == (status, b""), done.stderr
    assert message in done.stderr.decode().splitlines()[0], done.stderr


# --- made and replaced ---


@pytest.mark.parametrize("way", ["{}", "file:{}"])
@pytest.mark.parametrize(
    ("options", "there", "done"),
    [
        ([], False, True),
        (["--create"], False, True),
        (["--overwrite"], False, True),
        (["--create", "--overwrite"], False, True),
        ([], True, False),
        (["--create"], True, False),
        (["--overwrite"], True, True),
        (["--create", "--overwrite"], True, True),
    ],
)
def test_what_may_be_there(tmp_path: Path, way: str, options: list[str], there: bool, done: bool) -> None:
    path = tmp_path / "v"
    if there:
        path.write_bytes(b"old")
    ended = run("qb-volwrite", *options, way.format(path), data=STREAM)
    if done:
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
        assert path.read_bytes() == VOLUME
    else:
        failed(ended, 5, f"{path} already exists")
        assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["v"]


def test_the_size_is_printed_when_all_is_in_place(tmp_path: Path) -> None:
    assert run("qb-volwrite", "--print-size", tmp_path / "v", data=STREAM).stdout == b"%d\n" % SIZE
    assert run("qb-volwrite", "--print-size", "--raw", tmp_path / "w", data=b"abc").stdout == b"3\n"
    failed(run("qb-volwrite", "--print-size", tmp_path / "x", data=STREAM[:-1]), 4, "end line")


def test_a_misspelt_device_is_no_new_file(tmp_path: Path) -> None:
    if os.stat("/dev").st_dev == os.stat("/").st_dev:
        missing("/dev is no file system of its own")
    for options in [], ["--create"], ["--overwrite"]:
        failed(
            run("qb-volwrite", *options, "/dev/qbtools-sdx", data=STREAM),
            2,
            "no kind of volume can be created with this name",
        )
        failed(run("qb-volwrite", *options, "block:/dev/qbtools-sdx", data=STREAM), 1, "No such file or directory")
    assert not os.path.lexists("/dev/qbtools-sdx")
    failed(run("qb-volwrite", f"block:{tmp_path}/new", data=STREAM), 1, "No such file or directory")
    failed(run("qb-volwrite", "no/directory", data=STREAM), 2, "no/directory does not exist, and no kind")
    failed(run("qb-volwrite", "rbd:pool/v", data=STREAM), 2, "unknown kind of volume: rbd")


# --- smaller than before ---


def test_a_file_becomes_smaller_only_when_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "v"
    path.write_bytes(b"o" * (SIZE + 1))
    for options, data in ([], STREAM), (["--raw"], VOLUME):
        done = run("qb-volwrite", "--overwrite", *options, path, data=data)
        failed(done, 5, f"{path} has {SIZE + 1} bytes, the volume only {SIZE}")
        assert b"hint: --shrink" in done.stderr
        assert path.read_bytes() == b"o" * (SIZE + 1)
    done = run("qb-volwrite", "--overwrite", "--shrink", path, data=STREAM)
    warning = f"qb-volwrite: warning: {path} shrinks from {SIZE + 1} to {SIZE} bytes\n"
    assert (done.returncode, done.stderr.decode()) == (0, warning)
    assert path.read_bytes() == VOLUME
    assert run("qb-volwrite", "--overwrite", path, data=STREAM).stderr == b"", "the same size is not smaller"
    done = run("qb-volwrite", "--overwrite", "--shrink", "--raw", path, data=b"abc")
    assert (done.returncode, done.stderr.count(b"shrinks"), path.read_bytes()) == (0, 1, b"abc")


def test_percentages_of_a_pool(tmp_path: Path) -> None:
    for text in "100", "-1", "5.5.5", "", "x", "1e1":
        failed(run("qb-volwrite", f"--pool-reserve={text}", tmp_path / "v", data=STREAM), 2, "--pool-reserve: ")
    for text in "0", "12.5", "7%":
        assert run("qb-volwrite", "--overwrite", f"--pool-reserve={text}", tmp_path / "v", data=STREAM).returncode == 0


# --- in use ---


def test_a_file_that_somebody_writes_to_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "v"
    path.write_bytes(b"o" * SIZE)
    with path.open("r+b"):
        failed(run("qb-volwrite", "--overwrite", path, data=STREAM), 5, f"{path} is in use: process {os.getpid()} (")
    with loop(path) as device:
        done = run("qb-volwrite", "--overwrite", path, data=STREAM)
        failed(done, 5, f"{path} is in use: {device.name} is built on it")
    assert path.read_bytes() == b"o" * SIZE
    with path.open("rb"):
        assert run("qb-volwrite", "--overwrite", path, data=STREAM).returncode == 0
    assert os.listdir(tmp_path) == ["v"]


def test_a_file_that_comes_into_use_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "v"
    path.write_bytes(b"o" * SIZE)
    with subprocess.Popen(
        ["qb-volwrite", "--raw", "--overwrite", path],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=environment(),
    ) as writing:
        assert writing.stdin is not None and writing.stderr is not None
        view = memoryview(VOLUME)[: 4 * MIB]  # more than a pipe holds
        while view:
            view = view[writing.stdin.write(view) :]
        with path.open("r+b") as machine:
            message = writing.stderr.read().decode()
            machine.write(b"new")
    assert writing.returncode == 5
    assert message.splitlines()[0] == (f"qb-volwrite: error: {path} came into use meanwhile: it was opened for writing")
    assert path.read_bytes() == b"new" + b"o" * (SIZE - 3)
    assert os.listdir(tmp_path) == ["v"]


# --- what is passed on, and what is left ---


@pytest.mark.parametrize("old", ["+C", "-C"])
def test_no_copy_on_write_is_handed_on(tmp_path: Path, old: str) -> None:
    need("chattr", "lsattr")
    with file_system(tmp_path, "btrfs", 512 * MIB) as place:
        path = place / "v"
        if old == "+C":
            path.touch()
            subprocess.run(["chattr", "+C", path], check=True)
        path.write_bytes(b"old")
        if old == "-C":
            subprocess.run(["chattr", "+C", place], check=True)
        assert run("qb-volwrite", "--overwrite", path, data=STREAM).returncode == 0
        attributes = subprocess.run(["lsattr", path], check=True, capture_output=True, text=True).stdout.split()[0]
        assert ("C" in attributes) == (old == "+C")


def test_leftovers_of_dead_runs_are_removed_and_no_others(tmp_path: Path) -> None:
    own = Mark.own()
    dead = [own._replace(boot="0" * 32), own._replace(start=own.start + 1)]
    kept = [own, own._replace(host="00000000", boot="0" * 32)]
    names = {mark: f".{mark}.0123abcd" for mark in dead + kept}
    strange = [f".{dead[0]}.0123abcd.mine", f".{dead[0]}", f"{dead[0]}.0123abcd", f".{dead[0]}x.0123abcd"]
    for name in [*names.values(), *strange]:
        (tmp_path / name).write_bytes(b"x")
    assert run("qb-volwrite", tmp_path / "v", data=STREAM).returncode == 0
    assert set(os.listdir(tmp_path)) == {"v", *strange, *(names[mark] for mark in kept)}
