"""A program that is loaded once and copied: what no run of a whole program shows in each case."""

from __future__ import annotations

import subprocess
import sys

from support import ROOT

ENDED = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from qbtools.commands.copies import Original
original = Original([])
pid = os.fork() or os._exit(0)
os.waitpid(pid, 0)
original._left = {{pid}}
original.wait(None)
print("ended")
"""


def test_a_copy_that_ended_before_that_was_recorded() -> None:
    """As it is when a signal arrives in between."""
    done = subprocess.run([sys.executable, "-c", ENDED], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"ended\n", b"")
