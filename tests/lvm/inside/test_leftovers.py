"""What is left of a run that ended badly: nothing, or what the next one removes. And what others have is theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from lvm import guest
from lvm.guest import MiB, Program

from qbtools.volumes.marks import Mark

PATTERN = os.urandom(8 * MiB)


@pytest.fixture(scope="module")
def volume(vg: str) -> str:
    """A thin volume with more data than a pipe holds."""
    guest.write(guest.thin(f"{vg}/left", 16 * MiB), 0, PATTERN)
    return f"{vg}/left"


def test_a_killed_run_leaves_what_the_next_one_removes(vg: str, volume: str) -> None:
    """Neither the snapshot of a run that goes on is touched, nor what has a name that the user gave it."""
    living = Program("qb-volread", f"lvm:{volume}", piped=True)
    begun = living.take(100)
    kept = guest.ours(vg)
    assert len(kept) == 1
    with Program("qb-volread", f"lvm:{volume}", piped=True) as killed:
        killed.take(100)
        (left,) = guest.ours(vg) - kept
        tags, permissions = guest.lvm("lvs", "--noheadings", "-o", "lv_tags,lv_permissions", f"{vg}/{left}").split()
        assert Mark.parse(tags) == Mark.of(killed.pid)
        assert permissions == "read-only"
        killed.kill()
        killed.wait()
    assert guest.ours(vg) == kept | {left}
    guest.lvm("lvcreate", "-qq", "-y", "-s", "-kn", "--addtag", tags, "-n", "qbtools_mine", volume)
    with Program("qb-volread", "-v", f"lvm:{volume}") as third:
        ended = third.wait()
    assert (ended.status, guest.Stream.parse(ended.stdout).data) == (0, PATTERN)
    assert f"removing {vg}/{left}, left by a run that has ended" in ended.stderr
    assert guest.ours(vg) == kept | {"qbtools_mine"}
    ended = living.wait(begun)
    assert (ended.status, guest.Stream.parse(ended.stdout).ended) == (0, True)
    assert guest.ours(vg) == {"qbtools_mine"}
    guest.remove(f"{vg}/qbtools_mine")


def test_a_run_whose_reader_leaves_leaves_nothing(vg: str, volume: str) -> None:
    with Program("qb-volread", f"lvm:{volume}", piped=True) as ended:
        ended.take(100)
        os.close(ended.pipe)
        ended.pipe = -1
        assert ended.wait().status == 128 + signal.SIGPIPE
    assert not guest.ours(vg)


def test_a_signal_while_lvm_makes_the_snapshot(vg: str, volume: str, tmp_path: Path) -> None:
    reached = tmp_path / "reached"
    slow = tmp_path / "lvcreate"
    slow.write_text(f"#!/bin/bash\ntrap '' INT TERM\ntouch {reached}\nsleep 0.5\nexec /sbin/lvcreate \"$@\"\n")
    slow.chmod(0o755)
    with Program("qb-volread", f"lvm:{volume}", PATH=f"{tmp_path}:{os.environ['PATH']}") as ended:
        while not reached.exists():
            time.sleep(0.05)
        ended.kill(signal.SIGTERM)
        assert ended.wait().status == 128 + signal.SIGTERM
    assert not guest.ours(vg)


def test_lvm_inherits_no_descriptor(vg: str, volume: str, tmp_path: Path) -> None:
    """Neither a passphrase's nor any other; and lvm, which would complain about it on stderr, is content."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for program in "lvs", "lvcreate", "lvremove", "thin_dump":
        (programs / program).write_text(
            f'#!/bin/bash\nfor fd in /proc/$$/fd/*; do [ ! -e "$fd" ] || seen+=" ${{fd##*/}}"; done\n'
            f'echo "{program}$seen" >>{tmp_path}/seen\nexec /sbin/{program} "$@"\n'
        )
        (programs / program).chmod(0o755)
    (tmp_path / "secret").write_text("passphrase")
    text = f"exec 3<{tmp_path}/secret 7<&3 9<&3; qb-volread lvm:{volume} | tail -c 12"
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "PATH": f"{programs}:{root}/bin:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-o", "pipefail", "-c", text], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"end 8388608\n", b"")
    seen = [line.split() for line in (tmp_path / "seen").read_text().splitlines()]
    assert {program for program, *_fds in seen} == {"lvs", "lvcreate", "lvremove", "thin_dump"}
    for _program, *fds in seen:
        assert set(fds) <= {"0", "1", "2", "255"}, "bash has its script as 255"


def test_snapshots_that_stay(vg: str, volume: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """qb-snapshot: taken for this process, read without another one, listed, released; left by a dead one, cleaned."""
    monkeypatch.setenv("LVM_SYSTEM_DIR", guest.seeing_only(vg, tmp_path / "lvm"))
    ended = guest.program("qb-snapshot", "take", f"lvm:{volume}")
    spec = ended.stdout.decode().strip()
    assert (ended.status, ended.stderr, spec.startswith(f"lvm:{vg}/qbtools_")) == (0, "", True)
    with Program("qb-volread", spec, piped=True) as reading:
        begun = reading.take(100)
        assert guest.ours(vg) == {spec.removeprefix(f"lvm:{vg}/")}, "no snapshot of a snapshot"
        stream = guest.Stream.parse(reading.wait(begun).stdout)
    assert (stream.extents, stream.data, stream.ended) == ([(0, 8 * MiB)], PATTERN, True)
    assert spec in guest.program("qb-snapshot", "list").stdout.decode()
    assert guest.program("qb-snapshot", "clean").status == 0
    assert guest.ours(vg), "its owner lives"
    assert guest.program("qb-snapshot", "release", spec).status == 0
    assert not guest.ours(vg)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as owner:  # it lives as long as the `with`
        spec = guest.program("qb-snapshot", "take", "--owner", str(owner.pid), f"lvm:{volume}").stdout.decode().strip()
    assert len(guest.ours(vg)) == 1
    assert guest.program("qb-snapshot", "clean").status == 0
    assert not guest.ours(vg)
    assert guest.program("qb-snapshot", "release", f"lvm:{volume}").status == 5
