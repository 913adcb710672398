"""All processes below a program: real processes that try to survive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from running import wait_until
from support import ROOT, environment

from qbtools import processtree

# A program of its own: it would end the processes of the test runner as well.
PROGRAM = f"""
import os, subprocess, sys, time
sys.path.insert(0, {str(ROOT)!r})
from qbtools import processtree
processtree.adopt_orphans()
child = subprocess.Popen(["bash", "-c", sys.argv[1]], stdout=sys.stdout)
sys.stdin.readline()
began = time.monotonic()
left = processtree.end_all()
print(f"left {{left}} {{processtree.below(os.getpid())}} {{time.monotonic() - began:.1f}}", flush=True)
print("code", child.wait(0))
"""


class Tree:
    """This program with its children. ready: the number of lines that they print when all have started."""

    def __init__(self, text: str, ready: int = 1) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, text],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        self.said = [self._process.stdout.readline().strip() for _ in range(ready)]

    def end(self) -> tuple[str, float]:
        """The result of end_all(), the processes that it left, and its seconds."""
        out, _ = self._process.communicate("\n", timeout=60)
        assert self._process.returncode == 0
        left, _, seconds = out.splitlines()[0].rpartition(" ")
        return left, float(seconds)

    def close(self) -> None:
        for pid in processtree.below(self.pid):
            os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def trees() -> Iterator[list[Tree]]:
    made: list[Tree] = []
    yield made
    for tree in made:
        tree.close()


NOTHING = "left [] []"


@pytest.mark.parametrize(
    ("text", "ready"),
    [
        ("echo; exec sleep 1000", 1),
        ("sleep 1000 | sleep 1000 | sleep 1000 & echo; wait", 1),
        ("(setsid sleep 1000 & echo) ; echo; exec sleep 1000", 2),  # an orphan in a session of its own
        ("setsid setsid bash -c 'sleep 1000 & echo; sleep 1000 & disown; exit' & wait; echo; exec sleep 1000", 2),
        ("sleep 1000 & kill -STOP $!; echo; wait", 1),
        ("bash -c 'echo; kill -STOP $$' & wait", 1),
        ("(bash -c 'trap \"\" INT HUP; echo; sleep 1000') & wait", 1),
    ],
)
def test_processes_that_end_by_the_first_signal(text: str, ready: int, trees: list[Tree]) -> None:
    trees.append(tree := Tree(text, ready))
    assert processtree.below(tree.pid)
    left, seconds = tree.end()
    assert left == NOTHING
    assert seconds < processtree.GRACE, "nobody had to be killed"


STUBBORN = [
    "trap '' TERM; echo; while :; do sleep 0.1; done",
    "trap '' TERM HUP INT; (trap '' TERM; echo; while :; do sleep 0.1; done); sleep 1000",
    "bash -c 'trap \"\" TERM; echo; kill -STOP $$; while :; do sleep 0.1; done' & wait",
    "setsid bash -c 'trap \"\" TERM; echo; while :; do sleep 0.1; done' & exit",
    "trap 'bash -c \"trap '' TERM; while :; do sleep 0.1; done\" & ' TERM; echo; while :; do sleep 0.1; done",
]


def test_what_must_be_killed(trees: list[Tree]) -> None:
    """All at the same time, because each takes the full grace period."""
    trees += [Tree(text) for text in STUBBORN]
    with ThreadPoolExecutor(len(trees)) as pool:
        ended = dict(zip(STUBBORN, pool.map(Tree.end, trees), strict=True))
    for text, (left, seconds) in ended.items():
        assert left == NOTHING, text
        assert processtree.GRACE <= seconds < processtree.GRACE + 5, text


def test_one_that_cleans_up_is_given_the_time(trees: list[Tree], tmp_path: Path) -> None:
    trees.append(
        tree := Tree(f"trap 'sleep 1; echo done >{tmp_path}/done; exit' TERM; echo; while :; do sleep 0.1; done")
    )
    assert tree.end()[0] == NOTHING
    assert (tmp_path / "done").exists()


def test_one_that_missed_the_first_signal(trees: list[Tree]) -> None:
    """Like a process that was just about to execute another program."""
    trees.append(tree := Tree("trap '[ -z \"$one\" ] || exit; one=1' TERM; echo; while :; do sleep 0.01; done"))
    left, seconds = tree.end()
    assert left == NOTHING
    assert seconds < processtree.GRACE


def test_nothing_is_below(trees: list[Tree]) -> None:
    trees.append(tree := Tree("echo"))
    wait_until(lambda: not processtree.below(tree.pid), "the end of the only child")
    left, seconds = tree.end()
    assert (left, seconds < 1) == (NOTHING, True)


def test_who_is_below_and_who_is_a_child(trees: list[Tree]) -> None:
    trees.append(tree := Tree("sleep 1000 & echo $$ $!; wait"))
    bash, sleep = map(int, tree.said[0].split())
    assert processtree.below(tree.pid) == [bash, sleep]
    assert processtree.children_of(tree.pid) == [bash]
    assert processtree.children_of(bash) == [sleep]
    assert processtree.children_of(sleep) == []


def test_a_name_that_looks_like_more(tmp_path: Path) -> None:
    """proc(5): the name in parentheses may contain anything."""
    program = tmp_path / "a) Z 1 (b"
    program.write_text("#!/bin/bash\nread -r\n")
    program.chmod(0o755)
    process = subprocess.Popen([program], stdin=subprocess.PIPE)
    try:
        wait_until(lambda: process.pid in processtree.children_of(os.getpid()), "the process")
        comm = Path(f"/proc/{process.pid}/comm")
        wait_until(lambda: comm.read_text() == "a) Z 1 (b\n", "its name")
        assert process.pid in processtree.children_of(os.getpid())
    finally:
        process.communicate()


def test_a_process_that_never_ends_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that hangs in the kernel; in this test no signal is sent to it."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(processtree, "_left", lambda: [7])
    monkeypatch.setattr(processtree, "_signal", lambda pid, number: sent.append((pid, number)))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    clock = iter(range(100))
    assert processtree.end_all(clock=lambda: float(next(clock))) == [7]
    assert (7, signal.SIGTERM) in sent
    assert sent[-1] == (7, signal.SIGKILL)
