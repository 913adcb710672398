"""The tests that need a device mapper and lvm of their own, all in one guest."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
from support import ROOT, environment, missing

LACKING = 77
TIME = 720  # seconds after which it hangs: it takes a quarter of that


def test_in_the_guest() -> None:
    with subprocess.Popen(
        [ROOT / "tests" / "lvm" / "run"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
        start_new_session=True,
    ) as running:
        try:
            output, _ = running.communicate(timeout=TIME)
        except BaseException:
            os.killpg(running.pid, signal.SIGKILL)  # the emulator too
            print((running.communicate()[0]).decode("utf-8", "replace"))
            raise
    text = output.decode("utf-8", "replace")
    if running.returncode == LACKING:
        missing(text.strip())
    print(text)
    if running.returncode or " passed" not in text:
        pytest.fail(f"the tests in the guest ended with status {running.returncode}")
