"""Hosts that hold volumes while they are read: what they hold is read, and it is released in every case."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostdirs import Machine, images, make_host, noise
from running import OF_FILE, Running, kill
from support import BIN, copy_of, run

SECRET = {"QB_PASSPHRASE_COMMAND": "echo held"}
MIB = 1 << 20

# A directory whose volumes are copied when they are held, to HOST.held/DOMAIN, with the mark of the run.
_HOLDING = """#!/bin/bash
set -e
held=$1.held/$3
case $2 in
    verbs) qb-host-dir "$@" && printf 'hold\\nrelease\\n' ;;
    hold)
        echo "$2 $3" >>"$1.log"
        [ "$3" != "$(cat "$1.refuse" 2>/dev/null)" ] || { echo 'it must not' >&2; exit 1; }
        mkdir -p "$1.held"
        mkdir "$held"
        echo "$4" >"$held/mark"
        cp --sparse=always "$1/$3"/*.img "$held"
        for image in "$held"/*.img; do
            name=${image##*/}
            printf '%s\\tfile:%s\\n' "${name%.img}" "$image"
        done
        [ "$3" = "$(cat "$1.cut" 2>/dev/null)" ] || echo end
        ;;
    release)
        echo "$2 $3" >>"$1.log"
        [ "$(cat "$held/mark" 2>/dev/null)" != "$4" ] || rm -r "$held"
        ;;
    inventory)
        text=$(qb-host-dir "$@")
        for mark in "$1".held/*/mark; do
            [ -e "$mark" ] || continue
            domain=${mark%/mark} name="<property name=\\"name\\">${domain##*/}</property>"
            feature="<feature name=\\"qbtools-held\\">$(<"$mark")</feature>"
            text=${text/"$name"/"$name</properties><features>$feature</features><properties>"}
        done
        printf '%s' "$text"
        ;;
    *) exec qb-host-dir "$@" ;;
esac
"""


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return make_host(
        tmp_path / "A",
        [
            Machine("first", data={"root": noise("first"), "private": noise("first" * 2)}, size=4 * MIB),
            Machine("second", "AppVM", data={"private": noise("second")}, size=4 * MIB),
        ],
    )


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    (tmp_path / "run").mkdir()
    made = Running(tmp_path / "run", tmp_path, **SECRET)
    made.program("qb-host-holding", _HOLDING)
    with made:
        yield made


CREATE = "exec qb-backup create -q --logn 10 -o a.qb"


def log(host: Path) -> list[str]:
    return Path(f"{host}.log").read_text().splitlines()


def held(host: Path) -> list[str]:
    return sorted(path.name for path in Path(f"{host}.held").glob("*"))


def stop(running: Running, host: Path, words: str = "") -> None:
    """Stops a backup in the second volume of the first machine."""
    running.program("igzip", OF_FILE + 'if [ "$QB_NAME" = vm1/private.img ]; then valve 5000; else cat; fi | gzip -c\n')
    running.start(f"{CREATE} --host holding:{host} {words}")
    running.hold()


def restored(place: Path) -> dict[str, bytes]:
    (place / "B").mkdir()
    words = ("-q", "--yes", "--ignore-missing", f"--host={place}/B")
    done = run("qb-backup", "restore", *words, place / "a.qb", **SECRET)
    assert (done.returncode, done.stderr) == (0, b"")
    return images(place / "B")


def test_what_is_held_is_saved(host: Path, running: Running, tmp_path: Path) -> None:
    before = images(host)
    with (host / "first/root.img").open("r+b") as root:
        stop(running, host)
        assert (held(host), log(host)) == (["first"], ["hold first"])
        for name in ("root", "private"):
            (host / f"first/{name}.img").write_bytes(b"new" * MIB)
        running.release()
        assert running.end() == (0, "")
        assert root.fileno()
    assert log(host) == ["hold first", "release first", "hold second", "release second"]
    assert held(host) == []
    assert restored(tmp_path) == before
    assert "qbtools-held" not in (tmp_path / "B/qubes.xml").read_text()


def test_each_archive_holds_its_own(host: Path, running: Running, tmp_path: Path) -> None:
    running.start(f"exec qb-backup create -q --logn 10 --each -o {tmp_path} --host holding:{host}")
    assert running.end() == (0, "")
    assert log(host) == ["hold first", "release first", "hold second", "release second"]


def test_the_present_state_needs_no_hold(host: Path, running: Running) -> None:
    running.start(f"{CREATE} --state=current --host holding:{host} && qb-backup create -n --host holding:{host}")
    assert running.end()[0] == 0
    assert not Path(f"{host}.log").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_releases_it(number: signal.Signals, host: Path, running: Running) -> None:
    stop(running, host)
    kill(running.one("qb-run"), number)
    assert running.end() == (-number, "")
    running.gone()
    assert (held(host), log(host)) == ([], ["hold first", "release first"])


@pytest.mark.parametrize("words", ["", "--strict", "--each"])
def test_a_host_that_cannot_hold_a_domain(words: str, host: Path, running: Running, tmp_path: Path) -> None:
    Path(f"{host}.refuse").write_text("first")
    place = tmp_path if words == "--each" else "a.qb"
    running.start(f"exec qb-backup create -q --logn 10 -o {place} {words} --host holding:{host}")
    status, said = running.end()
    assert (status, held(host)) == (1, [])
    assert f"qb-host-holding {host} hold first" in said and "it must not" in said
    assert log(host) == [
        "hold first",
        "release first",
        *([] if words == "--strict" else ["hold second", "release second"]),
    ]


def test_lines_without_an_end(host: Path, running: Running) -> None:
    Path(f"{host}.cut").write_text("second")
    running.start(f"{CREATE} --json --host holding:{host}")
    assert running._process is not None
    out, said = running._process.communicate()
    first, second = json.loads(out)["domains"]
    assert (running._process.returncode, first["problem"]) == (1, None)
    assert "its last line is not end" in second["problem"] and b"its last line is not end" in said
    assert (held(host), log(host)[-2:]) == ([], ["hold second", "release second"])


def test_a_file_that_fails_releases_it(host: Path, running: Running) -> None:
    running.program("igzip", OF_FILE + '[ "$QB_NAME" != vm1/private.img ] || exit 3\nexec gzip -c\n')
    for strict in ("--strict", ""):
        running.start(f"{CREATE} {strict} --host holding:{host}")
        assert running.end()[0] == 1
        assert held(host) == []


def test_what_a_killed_run_holds_is_released_by_the_next(host: Path, running: Running, tmp_path: Path) -> None:
    stop(running, host)
    for pid in running.processes():
        kill(pid, signal.SIGKILL)
    running.gone()
    assert held(host) == ["first"]
    assert not (tmp_path / "a.qb").exists()
    running.program("igzip", "#!/bin/bash\nexec gzip -c\n")
    running.start(f"exec qb-backup create -n --host holding:{host}")
    assert running.end() == (0, "")
    assert held(host) == ["first"], "a dry run changes nothing"
    running.start(f"exec qb-backup create -v --logn 10 -o a.qb --host holding:{host} second")
    status, said = running.end()
    assert status == 0 and "released first, which a run held that has ended\n" in said
    assert held(host) == []
    assert log(host) == ["hold first", "release first", "hold second", "release second"]


def test_a_domain_that_another_run_holds(host: Path, running: Running, tmp_path: Path) -> None:
    stop(running, host)
    (tmp_path / "other").mkdir()
    with Running(tmp_path / "other", tmp_path, **SECRET) as other:
        other.program("qb-host-holding", _HOLDING)
        other.start(f"exec qb-backup create -q --logn 10 -o b.qb --host holding:{host}")
        status, said = other.end()
        assert status == 1 and "first is not saved completely" in said
    assert held(host) == ["first"], "the other run does not release it"
    running.release()
    assert running.end() == (0, "")
    assert held(host) == []


def test_a_release_that_hangs_ends_after_a_time(host: Path, running: Running, tmp_path: Path) -> None:
    """When a signal ends the run, the host gets no more than a minute (here a second)."""
    program = copy_of(tmp_path / "copy", "bin", "qbtools")
    module = program / "qbtools/runs/savinghost.py"
    module.write_text(module.read_text().replace("\nHURRY = 60.0\n", "\nHURRY = 1.0\n"))
    running.environment["PATH"] = running.environment["PATH"].replace(str(BIN), f"{program}/bin")
    running.program("qb-host-holding", _HOLDING.replace("    release)\n", "    release)\n        exec sleep 300\n"))
    stop(running, host)
    kill(running.one("qb-run"), signal.SIGTERM)
    status, said = running.end()
    assert status == -signal.SIGTERM and "has not ended after 1 seconds" in said
    running.gone()
