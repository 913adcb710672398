"""Waits for a program that says a line now and then: silence is a fault, however long the whole takes."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


class Stuck(Exception):
    """The program was killed: for its silence, or because it went on for ever. `output` is what it had said."""

    def __init__(self, reason: str, output: str) -> None:
        super().__init__(reason)
        self.output = output


def watch(
    argv: Sequence[str | Path], env: Mapping[str, str], silence: float = 300, limit: float = 3600
) -> tuple[int, str]:
    """Runs the program in a session of its own; its exit status and what it wrote to stdout and stderr.

    silence: so many seconds may pass between two lines. limit: so many for the whole, so that a program that repeats
    itself ends too.
    """
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=env,
        start_new_session=True,
    ) as running:
        assert running.stdout is not None
        output = b""
        began = spoke = time.monotonic()
        try:
            while True:
                now = time.monotonic()
                if now - spoke > silence:
                    raise Stuck(f"no line for {silence:g} seconds", output.decode("utf-8", "replace"))
                if now - began > limit:
                    raise Stuck(f"no end after {limit:g} seconds", output.decode("utf-8", "replace"))
                if select.select([running.stdout], [], [], min(1.0, silence))[0]:
                    more = os.read(running.stdout.fileno(), 1 << 16)
                    if not more:
                        return running.wait(), output.decode("utf-8", "replace")
                    output += more
                    if b"\n" in more:
                        spoke = time.monotonic()
        finally:
            if running.returncode is None:
                os.killpg(running.pid, signal.SIGKILL)  # the emulator too
