"""The cleanup of qb-backup after a signal: its message, and that a second signal ends it immediately."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import cast

import pytest

from qbtools.commands import cli, ending
from qbtools.commands.backup import openhost, save
from qbtools.commands.cli import Invocation
from qbtools.runs.making import Making
from qbtools.runs.savinghost import Taking

ENDS = "this may take up to a minute; a second signal ends it and leaves"


class Slow:
    """Replaces the snapshots and the domains of a run: the cleanup reports that it has begun, and takes long."""

    held = unfinished = True

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def hurry(self) -> None:
        """There is no host that could hang."""

    def release(self) -> None:
        os.write(2, b"begun\n")
        until = time.monotonic() + self._seconds
        while time.monotonic() < until:
            time.sleep(0.01)
        os.write(2, b"done\n")

    def settle(self, _found: object) -> None:
        self.release()


def saving(call: Invocation, slow: Slow) -> None:
    with ExitStack() as cleanup:
        cleanup.callback(save._release, call, cast(Taking, slow))
        os.write(2, b"ready\n")
        time.sleep(60)


def restoring(call: Invocation, slow: Slow) -> None:
    error: BaseException | None = None
    try:
        os.write(2, b"ready\n")
        time.sleep(60)
    except ending.Terminated as ended:
        error = ended
    error = openhost._settled(call, cast(Making, slow), [], error)
    if error is not None:
        raise error


RUNS = [
    (saving, f"releasing snapshots: {ENDS} them to the next run"),
    (restoring, f"removing unfinished domains: {ENDS} them to the next run"),
]


class Program:
    """One of these runs as a separate program; its stderr is read line by line."""

    def __init__(self, main: Callable[[Invocation, Slow], None], seconds: float, *words: str) -> None:
        self._said, theirs = os.pipe()
        self._rest = b""
        self.pid = os.fork()
        if not self.pid:
            os.dup2(theirs, 2)
            cli.run(
                "qb-backup",
                "Usage: qb-backup [options]\n\nOptions:\n  -q --quiet  Say less.\n",
                lambda call: main(call, Slow(seconds)),
                words,
            )
        os.close(theirs)

    def line(self) -> str:
        """The next line; the test fails if there is none."""
        while b"\n" not in self._rest:
            assert select.select([self._said], [], [], 20)[0], "nothing is said"
            more = os.read(self._said, 4096)
            assert more, "it has ended"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def end(self) -> tuple[int, bytes]:
        """The signal that ends it, and the rest of stderr."""
        code = os.waitpid(self.pid, 0)[1]
        while more := os.read(self._said, 4096):
            self._rest += more
        os.close(self._said)
        return -os.waitstatus_to_exitcode(code), self._rest


@pytest.mark.parametrize(("main", "words"), RUNS)
def test_one_signal_is_followed_by_the_whole_cleanup(main: Callable[[Invocation, Slow], None], words: str) -> None:
    run = Program(main, 0.1)
    assert run.line() == "ready"
    os.kill(run.pid, signal.SIGTERM)
    assert [run.line(), run.line()] == [f"qb-backup: {words}", "begun"]
    assert run.end() == (signal.SIGTERM, b"done\n")


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("main", "words"), RUNS)
def test_a_second_signal_ends_it_at_once(
    main: Callable[[Invocation, Slow], None], words: str, first: signal.Signals
) -> None:
    run = Program(main, 60, "-q")
    assert run.line() == "ready"
    os.kill(run.pid, first)
    assert run.line() == "begun", "with -q nothing is said of it"
    began = time.monotonic()
    os.kill(run.pid, signal.SIGTERM)
    assert run.end() == (signal.SIGTERM, b"")
    assert time.monotonic() - began < 20
