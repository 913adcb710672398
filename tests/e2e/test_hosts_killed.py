"""A restore to a host is killed or interrupted at every stage: the host stays valid, a second run completes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from hostdirs import Machine, images, inventory, make_host, noise, prop, unfinished
from running import Running, kill
from support import run

from qbtools.hosts import client

SECRET = {"QB_PASSPHRASE_COMMAND": "echo killed"}
NAMES = ["deb", "net", "work"]

# A host that waits in front of one of its verbs: the one of which QB_STOP tells verb, domain and at which call.
_SLOW = """#!/bin/bash
if [ "$2 ${3-}" = "${QB_STOP% *}" ]; then
    echo >>"$QB_TEST_VALVE/calls"
    [ "$(wc -l <"$QB_TEST_VALVE/calls")" != "${QB_STOP##* }" ] || { : | valve 0; } >/dev/null
fi
exec qb-host-dir "$@"
"""
# The same behind it.
_SLOW_BEHIND = """#!/bin/bash
qb-host-dir "$@" || exit
if [ "$2 ${3-}" = "${QB_STOP% *}" ]; then
    echo >>"$QB_TEST_VALVE/calls"
    [ "$(wc -l <"$QB_TEST_VALVE/calls")" != "${QB_STOP##* }" ] || { : | valve 0; } >/dev/null
fi
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The host A, and an archive of it, a.qb."""
    place = tmp_path_factory.mktemp("killed")
    machines = [
        Machine("deb", "TemplateVM", data={"root": noise("deb-root"), "private": noise("deb-private")}),
        Machine("net", "AppVM", {"template": "deb", "provides_network": "True"}, {"private": noise("net")}),
        Machine("work", "AppVM", {"template": "deb", "netvm": "net"}, {"private": noise("work", 900_000)}),
    ]
    make_host(place / "A", machines)
    done = run("qb-backup", "create", "-q", "--logn=10", f"--host={place}/A", f"--output={place}/a.qb", **SECRET)
    assert (done.returncode, done.stderr) == (0, b"")
    return place


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A host with one machine, which no restore may touch."""
    return make_host(tmp_path / "B", [Machine("mine", data={"root": b"mine", "private": b"mine"})])


def complete(folder: Path, target: Path) -> None:
    """A second run creates all incomplete machines again, under their own names, and nothing else exists.

    If nothing incomplete is left, it would find what any first run finds.
    """
    if not unfinished(target):
        clean(folder, target)
        return
    wanted = [f"--include={name}" for name in NAMES if name not in inventory(target).keys() - unfinished(target)]
    done = run("qb-backup", "restore", "-q", "--yes", f"--host=dir:{target}", *wanted, folder / "a.qb", **SECRET)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert list(inventory(target)) == ["mine", *NAMES]
    assert prop(inventory(target)["work"], "template") == "deb"
    assert unfinished(target) == set()
    assert images(target) == {**images(folder / "A"), "mine/root.img": b"mine", "mine/private.img": b"mine"}
    assert all(not path.name.startswith(".") for path in target.rglob("*"))


def clean(folder: Path, target: Path) -> None:
    """There are only complete machines."""
    expected = {**images(folder / "A"), "mine/root.img": b"mine", "mine/private.img": b"mine"}
    names = list(inventory(target))
    assert images(target) == {name: data for name, data in expected.items() if name.split("/")[0] in names}
    assert {path.name for path in target.iterdir()} - {"qubes.xml.lock"} == {*names, "qubes.xml"}


def consistent(target: Path) -> None:
    """Everything in the inventory exists; unfinished domains are marked."""
    done = run("qb-host-dir", target, "inventory")
    assert (done.returncode, done.stderr) == (0, b"")
    found = inventory(target)
    assert found.keys() <= {"mine", *NAMES}
    for name in found:
        volumes = run("qb-host-dir", target, "volumes", name)
        assert (volumes.returncode, volumes.stderr) == (0, b"")
        for line in volumes.stdout.decode().splitlines():
            assert os.path.exists(line.split("\t")[1].removeprefix("file:"))
    assert images(target)["mine/root.img"] == b"mine"


# In front of the first machine; with the first one begun; with all of them and some of the properties; with one whole.
STOPS = ["create  1", "create  2", "set work 1", "set work 2"]


def start(running: Running, target: Path, stop: str, behind: bool = False) -> None:
    running.program("qb-host-slow", _SLOW_BEHIND if behind else _SLOW)
    running.environment["QB_STOP"] = stop
    running.start(f"exec qb-backup restore -q --yes --host slow:{target} a.qb")
    running.hold()


@pytest.fixture
def running(folder: Path, tmp_path: Path) -> Running:
    (tmp_path / "run").mkdir()
    return Running(tmp_path / "run", folder, **SECRET)


@pytest.mark.parametrize(
    ("stop", "behind"),
    [*((stop, False) for stop in STOPS if stop != "set work 1"), ("create  3", True), ("set work 2", True)],
)
def test_all_of_it_is_killed(stop: str, behind: bool, folder: Path, target: Path, running: Running) -> None:
    with running:
        start(running, target, stop, behind)
        for pid in running.processes():
            kill(pid, signal.SIGKILL)
        running.gone()
    consistent(target)
    complete(folder, target)


@pytest.mark.parametrize(
    ("stop", "number"), [(stop, (signal.SIGINT, signal.SIGTERM)[at % 2]) for at, stop in enumerate(STOPS)]
)
def test_an_interrupt_leaves_nothing(
    stop: str, number: signal.Signals, folder: Path, target: Path, running: Running
) -> None:
    """But what was whole already: the last verb of all was under way.

    That a second run completes is tested where more is left: behind a kill at such places.
    """
    with running:
        start(running, target, stop)
        kill(running.one("qb-run"), number)
        running.release()
        assert running.end()[0] == -number
        running.gone()
    consistent(target)
    assert unfinished(target) == set()
    clean(folder, target)


def in_a_volume(running: Running, target: Path, name: str) -> None:
    running.hold_in(name, 5000)
    running.start(f"exec qb-backup restore -q --yes --host dir:{target} a.qb")
    running.hold()


@pytest.mark.parametrize("name", ["qubes.xml", "vm3/private.img"])
def test_killed_in_a_file(name: str, folder: Path, target: Path, running: Running) -> None:
    with running:
        in_a_volume(running, target, name) if name != "qubes.xml" else in_the_metadata(running, target)
        for pid in running.processes():
            kill(pid, signal.SIGKILL)
        running.gone()
    consistent(target)
    assert unfinished(target) == (set() if name == "qubes.xml" else set(NAMES))
    complete(folder, target)


def in_the_metadata(running: Running, target: Path) -> None:
    running.hold_in("qubes.xml", 100)
    running.start(f"exec qb-backup restore -q --yes --host dir:{target} a.qb")
    running.hold()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_interrupted_in_a_volume(number: signal.Signals, folder: Path, target: Path, running: Running) -> None:
    with running:
        in_a_volume(running, target, "vm3/private.img")
        assert unfinished(target) == set(NAMES)
        kill(running.one("qb-run"), number)
        running.release()
        assert running.end() == (-number, "")
        running.gone()
    assert list(inventory(target)) == ["mine"]
    clean(folder, target)


# A host whose verb remove waits.
_HOLDS_REMOVE = """#!/bin/bash
[ "$2" != remove ] || { : | valve 0; } >/dev/null
exec qb-host-dir "$@"
"""


@pytest.mark.parametrize("second", [False, True])
def test_a_second_signal_ends_the_cleanup_at_once(second: bool, folder: Path, target: Path, running: Running) -> None:
    """The next run removes the leftovers."""
    running.program("qb-host-slow", _HOLDS_REMOVE)
    running.hold_in("vm3/private.img", 5000)
    with running:
        running.start(f"exec qb-backup restore --yes --host slow:{target} a.qb")
        running.hold()
        running.forget()
        kill(running.one("qb-run"), signal.SIGTERM)
        running.hold()
        if second:
            kill(running.one("qb-run"), signal.SIGINT)
            status, stderr = running.end()
        for _name in NAMES:
            running.release()
        if not second:
            status, stderr = running.end()
        running.gone()
    assert status == (-signal.SIGINT if second else -signal.SIGTERM)
    assert stderr.splitlines()[-1] == (
        "qb-backup: removing unfinished domains: this may take up to a minute;"
        " a second signal ends it and leaves them to the next run"
    )
    consistent(target)
    assert unfinished(target) == (set(NAMES) if second else set())
    complete(folder, target)


@pytest.mark.parametrize("stage", ["qb-run", "qb-backup", "qb-unseal", "qb-volwrite"])
def test_one_program_is_killed_in_a_volume(stage: str, folder: Path, target: Path, running: Running) -> None:
    """The remaining processes end soon, and do not write to anything that a second run creates."""
    with running:
        in_a_volume(running, target, "vm2/private.img")
        kill(running.one(stage), signal.SIGKILL)
        running.release()
        assert running.end()[0] != 0
        running.gone()
    consistent(target)
    if stage != "qb-run":
        assert list(inventory(target)) == ["mine"]
    complete(folder, target)


def test_a_run_that_is_alive_is_left_alone(folder: Path, target: Path, running: Running) -> None:
    """Its machines count as taken, so a second run makes others."""
    with running:
        in_a_volume(running, target, "vm3/private.img")
        done = run("qb-backup", "restore", "-q", "--yes", f"--host=dir:{target}", folder / "a.qb", **SECRET)
        assert done.returncode == 0, done.stderr
        assert unfinished(target) == set(NAMES)
        running.release()
        assert running.end() == (0, "")
    assert list(inventory(target)) == ["mine", *NAMES, *(f"{name}-1" for name in NAMES)]
    assert unfinished(target) == set()
    expected = images(folder / "A")
    assert images(target) == {
        **{"mine/root.img": b"mine", "mine/private.img": b"mine"},
        **expected,
        **{name.replace("/", "-1/"): data for name, data in expected.items()},
    }


# --- a host that hangs ---

# From QB_STOP on, it answers nothing any more. Neither it nor the process that it starts ends on a signal.
_HANGING = """#!/bin/bash
if [ "$2" = "$QB_STOP" ] || [ -e "$QB_TEST_VALVE/reached" ]; then
    trap '' TERM INT HUP
    sleep 1000 &
    touch "$QB_TEST_VALVE/reached"
    while :; do sleep 1000; done
fi
exec qb-host-dir "$@"
"""


@pytest.mark.parametrize(
    ("verb", "command", "number"),
    [
        ("inventory", "qb-backup create -q --logn=10 --host=slow:A -o {}/new.qb", signal.SIGTERM),
        ("inventory", "qb-backup restore -q --yes --host=slow:{}/B a.qb", signal.SIGINT),
        ("contents", "qb-backup create -q --logn=10 --host=slow:A -o {}/new.qb", signal.SIGINT),
        ("defaults", "qb-plan --host=slow:A --metadata <(tr -d '' <A/qubes.xml)", signal.SIGINT),
    ],
)
def test_a_host_that_hangs_does_not_hold_up_a_signal(
    verb: str, command: str, number: int, folder: Path, target: Path, tmp_path: Path
) -> None:
    with Running(tmp_path, folder, **SECRET, QB_STOP=verb) as running:
        running.program("qb-host-slow", _HANGING)
        run = running.start(f"exec {command.format(tmp_path)}")
        running.hold()
        began = time.monotonic()
        run.send_signal(number)
        assert running.end() == (-number, "")
        assert time.monotonic() - began < 8, "two seconds on a machine that is not busy"
        running.gone()
    assert list(inventory(target)) == ["mine"]
    assert not list(tmp_path.glob("new.qb*"))


@pytest.mark.parametrize("verb", ["create", "set"])
def test_a_host_that_hangs_from_then_on(verb: str, folder: Path, target: Path, tmp_path: Path) -> None:
    """The cleanup does not wait for it. What is left is marked, and the next run removes it."""
    with Running(tmp_path, folder, **SECRET, QB_STOP=verb) as running:
        running.program("qb-host-slow", _HANGING)
        restore = running.start(f"exec qb-backup restore -q --yes --host=slow:{target} a.qb")
        running.hold()
        began = time.monotonic()
        restore.send_signal(signal.SIGTERM)
        status, stderr = running.end()
        assert time.monotonic() - began < client.CLEANUP + 10
        assert (status, stderr.count("has not ended after 10 seconds")) == (-signal.SIGTERM, 1), stderr
        running.gone()
    complete(folder, target)
