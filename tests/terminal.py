"""A terminal for a program under test: it becomes the controlling terminal, and its output is read here."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import termios
from types import TracebackType

import pytest
from support import environment

PATIENCE = 60.0
"""Seconds after which a program that says nothing more is taken for stuck."""


class Terminal:
    """Runs a program that has a controlling terminal, while its standard streams are not one.

    `said` is all that the program wrote to the terminal so far.
    """

    def __init__(self, *argv: str, **changes: str) -> None:
        self._ours, theirs = pty.openpty()
        self.said = b""
        try:
            self._process = subprocess.Popen(
                ["setsid", "--ctty", "--wait", "bash", "-c", 'exec "$@" </dev/null', "-", *argv],
                stdin=theirs,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(**changes),
            )
        finally:
            os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        os.close(self._ours)

    def expect(self, text: bytes) -> None:
        """Reads until the program has said text."""
        while text not in self.said:
            if not select.select([self._ours], [], [], PATIENCE)[0]:
                pytest.fail(f"waited in vain for {text!r} behind {self.said!r}")
            self._read()

    def _read(self) -> bool:
        """Reads once; False if no process has the terminal open any more."""
        try:
            data = os.read(self._ours, 4096)
        except OSError:  # EIO
            return False
        self.said += data
        return bool(data)

    def type(self, text: bytes) -> None:
        """Types text, newline included."""
        os.write(self._ours, text)

    def echoes(self) -> bool:
        """Whether typed text is shown."""
        return bool(termios.tcgetattr(self._ours)[3] & termios.ECHO)

    def finish(self) -> subprocess.CompletedProcess[bytes]:
        """Waits for the end of the program."""
        stdout, stderr = self._process.communicate(timeout=PATIENCE)
        while select.select([self._ours], [], [], 0)[0] and self._read():
            pass
        return subprocess.CompletedProcess([], self._process.returncode, stdout, stderr)
