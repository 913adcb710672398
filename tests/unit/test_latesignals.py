"""Signals that wait while a process is started."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from support import ROOT

from qbtools import latesignals, programs
from qbtools.latesignals import signals_later

CAME: list[int] = []


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    CAME.clear()
    old = signal.signal(signal.SIGTERM, lambda number, _frame: latesignals.waits(number) or CAME.append(number))
    yield
    signal.signal(signal.SIGTERM, old)


def arrive() -> None:
    signal.raise_signal(signal.SIGTERM)
    time.sleep(0)  # Python has called the handler


def test_a_signal_comes_when_the_last_body_has_ended() -> None:
    with signals_later():
        with signals_later():
            arrive()
            assert CAME == []
        assert CAME == []
    assert CAME == [signal.SIGTERM]


def test_two_signals_are_one() -> None:
    with signals_later():
        arrive()
        arrive()
    assert CAME == [signal.SIGTERM]
    arrive()
    assert CAME == [signal.SIGTERM] * 2


def test_a_failure_passes_when_no_signal_has_come() -> None:
    with pytest.raises(KeyError), signals_later():
        raise KeyError
    assert CAME == []


def test_another_thread_delays_nothing() -> None:
    """Handlers run in the main thread."""
    inside, leave = threading.Event(), threading.Event()

    def body() -> None:
        with signals_later():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=body)
    thread.start()
    inside.wait()
    arrive()
    assert CAME == [signal.SIGTERM]
    leave.set()
    thread.join()


STARTING = f"""
import os, signal, sys, threading, time
sys.path.insert(0, {str(ROOT)!r})
from qbtools import programs
from qbtools.commands.ending import Terminated, _terminate
signal.signal(signal.SIGTERM, _terminate)
other = threading.Thread(target=time.sleep, args=(60,), daemon=True)
other.start()
spawn = os.posix_spawn
def interrupted(*words, **options):
    global pid
    pid = spawn(*words, **options)
    signal.pthread_kill(other.ident, signal.SIGTERM)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and {str(signal.SIGTERM.value)} not in came():
        time.sleep(0.01)
    return pid
from qbtools import latesignals
came = lambda: latesignals._waiting
os.posix_spawn = interrupted
try:
    with programs.running(["/bin/sleep", "1000"]) as child:
        child.wait()
except Terminated:
    stays = os.path.exists(f"/proc/{{pid}}")
    if stays:
        os.kill(pid, signal.SIGKILL)
    print(stays)
"""


def test_a_program_does_not_stay_that_starts_while_a_signal_arrives_in_a_thread() -> None:
    done = subprocess.run([sys.executable, "-c", STARTING], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_a_program_gets_no_mask() -> None:
    with programs.running(["/bin/grep", "-qE", "^SigBlk:[[:space:]]*0+$", "/proc/self/status"]) as child:
        assert child.wait() == 0
