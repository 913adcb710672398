"""qb-snapshot: all volumes of a machine at one point in time, and nothing left after they are released."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from counters import advance, counting
from devices import file_system, loop, make_sparse
from running import wait_until
from support import environment, need, run

from qbtools.errors import OtherPython, Refused
from qbtools.volumes.kind import SourceOptions
from qbtools.volumes.kinds.qcow2 import KIND
from qbtools.volumes.marks import Mark
from qbtools.volumes.nbd import binding

MIB = 1 << 20
SIZE = 32 * MIB


@pytest.fixture(scope="module", params=["btrfs", "xfs"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system with reflinks."""
    with file_system(tmp_path_factory.mktemp("reflinks"), request.param, 512 * MIB) as place:
        yield place


@pytest.fixture(scope="module")
def reflinks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One of them, where it does not matter which."""
    with file_system(tmp_path_factory.mktemp("reflinks"), "xfs", 512 * MIB) as place:
        yield place


@pytest.fixture()
def place(reflinks: Path) -> Iterator[Path]:
    """An empty directory there, with two volumes in it."""
    where = reflinks / "volumes"
    where.mkdir()
    make_sparse(where / "root", SIZE, (0, b"r" * 8192))
    make_sparse(where / "private", SIZE, (MIB, b"p" * 8192))
    yield where
    for path in where.iterdir():
        path.unlink()
    where.rmdir()


def names(where: Path) -> list[str]:
    return sorted(os.listdir(where))


def failed(done: subprocess.CompletedProcess[bytes], status: int, message: str) -> None:
    """It ended with status and a line of error."""
    assert (done.returncode, done.stdout) == (status, b""), done.stderr
    assert message in done.stderr.decode(), done.stderr


def take(*words: str | Path) -> list[str]:
    """Takes snapshots; returns the output."""
    done = run("qb-snapshot", "take", *words)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().splitlines()


# --- images ---


@pytest.fixture
def overlay(place: Path) -> Path:
    """An image whose backing file is the volume root."""
    need("qemu-img", "qemu-nbd", "qemu-io")
    words = "qemu-img", "create", "-q", "-f", "qcow2", "-b", "root", "-F", "raw", place / "image"
    subprocess.run(words, check=True)
    return place / "image"


def test_an_image_whose_machine_starts_while_it_is_read(overlay: Path) -> None:
    (spec,) = take(f"qcow2:{overlay}")
    assert spec.startswith(f"qcow2:{overlay.parent}/.qbtools-")
    with subprocess.Popen(["qb-volread", "--raw", spec], stdout=subprocess.PIPE, env=environment()) as reader:
        assert reader.stdout is not None
        begin = reader.stdout.read(1)  # qemu-nbd has its locks
        subprocess.run(["qemu-io", "-c", f"write -P 7 0 {SIZE}", overlay], check=True, stdout=subprocess.DEVNULL)
        rest = reader.stdout.read()
    assert (reader.returncode, begin + rest) == (0, (overlay.parent / "root").read_bytes())
    assert run("qb-snapshot", "release", spec).returncode == 0
    assert names(overlay.parent) == ["image", "private", "root"]


def test_an_image_that_cannot_be_cloned(overlay: Path) -> None:
    where = overlay.parent
    (where.parent / "link").symlink_to(overlay)
    locked = ["qemu-io", "-c", "sleep 600000", str(overlay)]
    words = "-f", "qcow2", "-o", f"data_file={where}/data,data_file_raw=on", where / "outside", "1M"
    subprocess.run(["qemu-img", "create", "-q", *words], check=True)
    failed(run("qb-snapshot", "take", f"qcow2:{where}/outside"), 5, "its data is in another file")
    subprocess.run(["qemu-img", "rebase", "-u", "-b", where / "root", "-F", "raw", overlay], check=True)
    failed(run("qb-snapshot", "take", f"qcow2:{where.parent}/link"), 5, "it is a symbolic link to another directory")
    subprocess.run(["qemu-img", "rebase", "-u", "-b", "", overlay], check=True)
    assert run("qb-snapshot", "release", *take(f"qcow2:{where.parent}/link")).returncode == 0
    with subprocess.Popen(locked) as machine:
        try:
            wait_until(lambda: run("qb-volread", f"qcow2:{overlay}").returncode == 5, "it is in use")
            failed(run("qb-snapshot", "take", where / "root", f"qcow2:{overlay}"), 5, "another program has locked it")
        finally:
            machine.kill()
    (where.parent / "link").unlink()
    assert names(where) == ["data", "image", "outside", "private", "root"]


def test_an_image_where_another_python_is_needed(overlay: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, so that a run that saves a host reads the image without a snapshot."""

    def load() -> None:
        raise OtherPython("/usr/bin/python3", "it is missing for this Python", "install it")

    monkeypatch.setattr(binding, "load", load)
    with pytest.raises(Refused, match="it is missing for this Python"):
        KIND.take([str(overlay)], Mark.own(), SourceOptions())
    assert names(overlay.parent) == ["image", "private", "root"]


# --- taken, read, released ---


def test_two_volumes_at_one_point_in_time(both: Path) -> None:
    """Frozen, as a machine would be: the writer stops between freeze and thaw."""
    root, private = both / "root", both / "private"
    for path in root, private:
        make_sparse(path, SIZE, (0, b"x" * 4096))
    with counting(8, 16, root, private) as writer:
        freeze = f"kill -STOP {writer}; until grep -q '^State:.T' /proc/{writer}/status; do sleep 0.01; done"
        specs = take(f"--freeze={freeze}", f"--thaw=kill -CONT {writer}", root, private)
        advance(private, 16)
    assert all(spec.startswith(f"file:{both}/.qbtools-") for spec in specs) and len(specs) == 2
    first, second = (run("qb-volread", "--raw", spec).stdout for spec in specs)
    assert len(first) == len(second) == SIZE
    counters = int.from_bytes(first[8:16], "big"), int.from_bytes(second[16:24], "big")
    assert counters[0] - counters[1] in (0, 1) and counters[1] > 0
    assert run("qb-snapshot", "release", *specs).returncode == 0
    assert names(both) == ["private", "root"]


def test_a_snapshot_stays_as_it_was(place: Path) -> None:
    (spec,) = take(place / "root")
    with (place / "root").open("r+b") as file:
        file.write(b"changed")
    assert run("qb-volread", "--raw", spec).stdout == b"r" * 8192 + bytes(SIZE - 8192)
    size, data = map(int, run("qb-volread", "--size", spec).stdout.split())
    assert (size, data) == (SIZE, 8192)
    failed(run("qb-snapshot", "release", "-v", spec, spec), 1, "No such file or directory")
    assert names(place) == ["private", "root"]


def test_lists_and_owners(place: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as owner:
        try:
            (theirs,) = take(f"--owner={owner.pid}", place / "root")
            (ours,) = take(f"--owner={os.getpid()}", place / "root")
            listed = set(run("qb-snapshot", "list", place).stdout.decode().splitlines())
            assert listed == {f"{theirs}\t{owner.pid}\tkept", f"{ours}\t{os.getpid()}\tkept"}
            assert run("qb-snapshot", "clean", "-v", place).stderr == b""
        finally:
            owner.kill()
    assert f"{theirs}\t{owner.pid}\tdead\n" in run("qb-snapshot", "list", place).stdout.decode()
    found = json.loads(run("qb-snapshot", "list", "--json", place).stdout)
    assert {entry["spec"]: (entry["pid"], entry["dead"]) for entry in found} == {
        theirs: (owner.pid, True),
        ours: (os.getpid(), False),
    }
    done = run("qb-snapshot", "clean", "-v", place)
    assert (done.returncode, done.stderr.decode()) == (0, f"qb-snapshot: removed {theirs}\n")
    assert run("qb-snapshot", "list", place).stdout.decode() == f"{ours}\t{os.getpid()}\tkept\n"
    assert run("qb-snapshot", "release", ours).returncode == 0


def test_the_parent_is_the_owner(place: Path) -> None:
    """A script that dies leaves leftovers, and the next script that takes a snapshot there removes them."""
    done = run(sys.executable, "-c", f"import subprocess; subprocess.run(['qb-snapshot', 'take', '{place}/root'])")
    spec = done.stdout.decode().strip()
    assert run("qb-snapshot", "list", place).stdout.decode().split("\t")[::2] == [spec, "dead\n"]
    (other,) = take("--owner", str(os.getpid()), place / "root")
    assert names(place) == sorted([os.path.basename(other), "private", "root"])


def test_files_of_others_are_never_removed(place: Path) -> None:
    (place / ".qbtools-mine").write_bytes(b"x")
    (place / "qbtools.img").write_bytes(b"x")
    for path in ".qbtools-mine", "qbtools.img", "root":
        failed(run("qb-snapshot", "release", f"file:{place}/{path}"), 5, "has no mark of qbtools")
        failed(run("qb-snapshot", "release", place / path), 5, "has no mark of qbtools")
    assert run("qb-snapshot", "list", place).stdout == b""
    assert run("qb-snapshot", "clean", place).returncode == 0
    assert names(place) == [".qbtools-mine", "private", "qbtools.img", "root"]


def test_one_directory_that_is_not_there_does_not_hide_the_others(place: Path) -> None:
    (spec,) = take("--owner", str(os.getpid()), place / "root")
    done = run("qb-snapshot", "list", place, place / "gone")
    assert done.returncode == 1 and spec in done.stdout.decode()
    assert f"cannot read {place}/gone: No such file or directory" in done.stderr.decode()


# --- all or none ---


def test_what_cannot_be_snapshotted_is_known_before_anything_is_frozen(place: Path, tmp_path: Path) -> None:
    make_sparse(tmp_path / "v", MIB)
    frozen = tmp_path / "frozen"
    commands = f"--freeze=touch {frozen}", f"--thaw=touch {frozen}"
    failed(run("qb-snapshot", "take", *commands, place / "root", tmp_path / "v"), 5, f"{tmp_path}/v: no snapshot")
    failed(run("qb-snapshot", "take", *commands, place / "root", place / "gone"), 1, "No such file or directory")
    with loop(tmp_path / "v") as device:
        failed(run("qb-snapshot", "take", *commands, place / "root", device), 5, "no snapshot can be taken of it")
    assert not frozen.exists()
    assert names(place) == ["private", "root"]


def test_usage(place: Path) -> None:
    volume = place / "root"
    failed(run("qb-snapshot", "take", "--state=current", volume), 2, "takes no snapshot")
    failed(run("qb-snapshot", "take", "--state=before-start", volume), 2, "not before-start")
    failed(run("qb-snapshot", "take", "--freeze=true", volume), 2, "go together")
    failed(run("qb-snapshot", "take", "--thaw=true", volume), 2, "go together")
    failed(run("qb-snapshot", "take", "--thaw-limit=0", volume), 2, "--thaw-limit: ")
    failed(run("qb-snapshot", "take", "--owner=0", volume), 2, "--owner: ")
    failed(run("qb-snapshot", "take", f"--owner={(1 << 31) - 1}", volume), 1, "there is no process")
    failed(run("qb-snapshot", "take"), 2, "no volume given")
    failed(run("qb-snapshot", "release", "no/such"), 2, "neither an existing path")
    assert names(place) == ["private", "root"]


def test_nobody_is_told_about_the_snapshots(place: Path) -> None:
    done = run("bash", "-c", f"qb-snapshot take {place}/root > /dev/full")
    failed(done, 1, "cannot write to standard output: No space left on device")
    assert names(place) == ["private", "root"]


# --- frozen and thawed ---


def test_freeze_and_thaw_stand_around_it_and_print_on_stderr(place: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    look = f"ls -A {place} | wc -l >> {log}"
    done = run("qb-snapshot", "take", f"--freeze=echo froze; {look}", f"--thaw=echo melted; {look}", place / "root")
    assert (done.returncode, done.stderr) == (0, b"froze\nmelted\n")
    assert log.read_text().split() == ["2", "3"]
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("freeze", "thaw", "messages"),
    [
        ("exit 3", "true", ["error: no snapshot was taken: --freeze ended with status 3"]),
        ("false | true", "true", ["error: no snapshot was taken: --freeze stage 1 of 2 ended with status 1"]),
        ("kill -9 $$", "true", ["error: no snapshot was taken: --freeze was killed by SIGKILL"]),
        ("true", "exit 4", ["error: --thaw ended with status 4"]),
        ("exit 3", "exit 4", ["warning: --thaw ended with status 4", "error: no snapshot was taken: --freeze ended"]),
        ("sleep 1000", "true", ["error: no snapshot was taken: --freeze took too long"]),
    ],
)
def test_what_fails(place: Path, tmp_path: Path, freeze: str, thaw: str, messages: list[str]) -> None:
    done = run(
        "qb-snapshot",
        "take",
        "--thaw-limit=1",
        f"--freeze={freeze}",
        f"--thaw=echo x >> {tmp_path}/thawed; {thaw}",
        place / "root",
    )
    for message in messages:
        failed(done, 1, f"qb-snapshot: {message}")
    assert len(done.stderr.splitlines()) == len(messages)
    assert (tmp_path / "thawed").read_text() == "x\n", "thawed, once"
    assert names(place) == ["private", "root"]


@pytest.mark.parametrize(
    ("number", "whole_group"),
    [
        (signal.SIGTERM, False),
        (signal.SIGTERM, True),
        (signal.SIGINT, False),
        (signal.SIGINT, True),
        (signal.SIGKILL, False),  # who kills the watchdog too cannot be helped
    ],
)
def test_a_signal_while_it_is_frozen(place: Path, tmp_path: Path, number: signal.Signals, whole_group: bool) -> None:
    freeze = f"touch {tmp_path}/frozen; sleep 1000"
    thaw = f"touch {tmp_path}/thawed"
    with subprocess.Popen(
        ["qb-snapshot", "take", f"--freeze={freeze}", f"--thaw={thaw}", place / "root"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    ) as taking:
        wait_until((tmp_path / "frozen").exists, "freeze")
        (os.killpg if whole_group else os.kill)(taking.pid, number)
        stdout, stderr = taking.communicate()
    assert (taking.returncode, stdout, stderr) == (-number, b"", b"")
    wait_until((tmp_path / "thawed").exists, "thaw")
    assert names(place) == ["private", "root"]
