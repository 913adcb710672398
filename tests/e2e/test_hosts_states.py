"""Machines that run while they are saved: snapshots of all volumes at once, frozen, and always released."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from counters import counter, counting
from devices import file_system
from hostdirs import Machine, images, make_host, noise
from running import OF_FILE, Running, kill
from support import run

SECRET = {"QB_PASSPHRASE_COMMAND": "echo states"}
MIB = 1 << 20

# A host that can freeze machines: it is a directory, and the process that writes is in the file `writer` in it.
_FREEZING = """#!/bin/bash
case $2 in
    verbs) qb-host-dir "$@" && printf 'freeze\\nthaw\\n' ;;
    freeze)
        echo "$2 $3" >>"$1/log"
        kill -STOP "$(<"$1/writer")" || exit
        until grep -q '^State:.T' "/proc/$(<"$1/writer")/status"; do sleep 0.01; done
        ;;
    thaw) echo "$2 $3" >>"$1/log" && kill -CONT "$(<"$1/writer")" ;;
    *) exec qb-host-dir "$@" ;;
esac
"""


@pytest.fixture(scope="module")
def reflinks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with file_system(tmp_path_factory.mktemp("reflinks"), "xfs", 512 * MIB) as place:
        yield place


@pytest.fixture
def host(reflinks: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A host whose file system has snapshots."""
    made = make_host(
        reflinks / "A",
        [
            Machine("first", "StandaloneVM", data={"root": noise("root"), "private": noise("private")}, size=4 * MIB),
            Machine("second", "AppVM", data={"private": noise("private2")}, size=4 * MIB),
        ],
    )
    yield made
    run("rm", "-rf", made)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    (tmp_path / "run").mkdir()
    made = Running(tmp_path / "run", tmp_path, **SECRET)
    made.program("qb-host-freezing", _FREEZING)
    with made:
        yield made


def only_images(host: Path) -> None:
    """No snapshot is left."""
    found = {str(path.relative_to(host)) for path in host.rglob("*") if path.parent != host}
    assert found == {"first/root.img", "first/private.img", "second/private.img"}


def test_a_machine_that_runs_is_saved_at_one_point_in_time(host: Path, running: Running, tmp_path: Path) -> None:
    root, private = host / "first/root.img", host / "first/private.img"
    with counting(8, 16, root, private) as writer:
        (host / "writer").write_text(str(writer))
        process = running.start(f"qb-backup create -q --logn 10 --json --host freezing:{host} -o a.qb")
        stdout, stderr = process.communicate()
    stray = f"qb-backup: warning: {host}/writer is left out: no domain in qubes.xml has it\n"
    assert (process.returncode, stderr.decode()) == (0, stray)
    assert [(one["name"], one["state"]) for one in json.loads(stdout)["domains"]] == [
        ("first", "snapshot"),
        ("second", "snapshot"),
    ]
    assert (host / "log").read_text().split("\n") == ["freeze first", "thaw first", ""]
    only_images(host)
    (tmp_path / "B").mkdir()
    words = ("-q", "--yes", "--ignore-missing", f"--host={tmp_path}/B")
    done = run("qb-backup", "restore", *words, tmp_path / "a.qb", **SECRET)
    assert (done.returncode, done.stderr) == (0, b"")
    first, second = counter(tmp_path / "B/first/root.img", 8), counter(tmp_path / "B/first/private.img", 16)
    assert first - second in (0, 1) and second > 0
    restored = images(tmp_path / "B")
    assert {name: data[100:] for name, data in images(host).items()} == {n: data[100:] for n, data in restored.items()}


def test_the_table_tells_who_runs(host: Path) -> None:
    with (host / "first/root.img").open("r+b"):
        done = run("qb-backup", "create", f"--host={host}", "--dry-run", **SECRET)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert lines[1].endswith("running: a snapshot") and lines[2].endswith("stopped: a snapshot")
    only_images(host)


def hold(running: Running, host: Path) -> None:
    """Stops a backup in the second volume of the first machine."""
    running.program("igzip", OF_FILE + 'if [ "$QB_NAME" = vm1/private.img ]; then valve 5000; else cat; fi | gzip -c\n')
    running.start(f"exec qb-backup create -q --logn 10 --host {host} -o a.qb")
    running.hold()


def snapshots(host: Path) -> list[str]:
    return [str(path.relative_to(host)) for path in host.rglob(".qbtools-*")]


def test_snapshots_are_released_as_machines_are_done(host: Path, running: Running) -> None:
    with (host / "first/root.img").open("r+b"):
        hold(running, host)
        assert sorted(name.split("/")[0] for name in snapshots(host)) == ["first", "first"]
        running.release()
        assert running.end() == (0, "")
    only_images(host)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_releases_them(number: signal.Signals, host: Path, running: Running, tmp_path: Path) -> None:
    with (host / "first/root.img").open("r+b"):
        hold(running, host)
        kill(running.one("qb-run"), number)
        running.release()
        assert running.end() == (-number, "")
        running.gone()
    only_images(host)
    assert not list(tmp_path.glob("a.qb*"))


def test_a_file_that_fails_releases_them(host: Path, running: Running) -> None:
    running.program("igzip", OF_FILE + '[ "$QB_NAME" != vm1/private.img ] || exit 3\nexec gzip -c\n')
    for strict in ("--strict", ""):
        running.start(f"exec qb-backup create -q --logn 10 {strict} --host {host} -o a.qb")
        status, stderr = running.end()
        assert status == 1 and stderr.startswith("qb-compress: error: igzip ended with status 3\n")
        only_images(host)


def test_what_a_killed_run_has_left_goes_with_the_next(host: Path, running: Running, tmp_path: Path) -> None:
    with (host / "first/root.img").open("r+b"):
        hold(running, host)
        for pid in running.processes():
            kill(pid, signal.SIGKILL)
        running.gone()
        assert len(snapshots(host)) == 2
        done = run("qb-backup", "create", "-q", "--logn=10", f"--host={host}", f"--output={tmp_path}/b.qb", **SECRET)
        assert (done.returncode, done.stderr) == (0, b"")
    only_images(host)


def test_a_machine_that_cannot_be_frozen_is_not_saved(host: Path, running: Running, tmp_path: Path) -> None:
    (host / "writer").write_text("0x")
    with (host / "first/root.img").open("r+b"):
        running.start(f"exec qb-backup create -q --logn 10 --strict --host freezing:{host} -o a.qb")
        status, stderr = running.end()
        assert status == 1 and "no snapshot was taken: --freeze ended with status" in stderr
        only_images(host)
        assert not list(tmp_path.glob("a.qb*"))
        process = running.start(f"exec qb-backup create -q --json --logn 10 --host freezing:{host} -o a.qb")
        stdout, said = process.communicate()
    assert process.returncode == 1 and b"would restore it broken: first" in said
    first, second = json.loads(stdout)["domains"]
    assert "no snapshot was taken: --freeze ended with status" in first["problem"]
    assert second["problem"] is None and not second["broken"]
    only_images(host)
