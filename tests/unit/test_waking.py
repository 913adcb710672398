"""The thread that wakes the main thread."""

from __future__ import annotations

import signal
import subprocess
import sys

from support import ROOT

TEXT = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from qbtools.commands import waking
waking.start((signal.SIGTERM, signal.SIGINT))
for number in sorted(map(int, os.listdir("/proc/self/task"))):
    with open(f"/proc/self/task/{{number}}/status") as status:
        print(*[line.split()[1] for line in status if line.startswith("SigBlk")])
"""


def test_it_gets_no_signal_itself() -> None:
    """Otherwise a signal would be handled while the main thread blocks it, and a program that it starts would stay."""
    done = subprocess.run([sys.executable, "-c", TEXT], capture_output=True, text=True, check=True)
    main, thread = (int(line, 16) for line in done.stdout.split())
    assert main == 0
    assert thread == sum(1 << number - 1 for number in (signal.SIGTERM, signal.SIGINT))
