"""The tests that need a device mapper and lvm of their own, all in one guest."""

from __future__ import annotations

import subprocess

import pytest
from support import ROOT, environment, missing

LACKING = 77
TIME = 1200


def test_in_the_guest() -> None:
    argv = [ROOT / "tests" / "lvm" / "run"]
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, env=environment(), timeout=TIME, check=False
    )
    if done.returncode == LACKING:
        missing(done.stderr.decode().strip())
    text = (done.stdout + done.stderr).decode("utf-8", "replace")
    print(text)
    if done.returncode or " passed" not in text:
        pytest.fail(f"the tests in the guest ended with status {done.returncode}")
