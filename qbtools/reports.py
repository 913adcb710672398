"""What a stage says to the program that started it: how far it is, and how it failed.

Whoever runs a CMD gives it the writing end of a pipe. QB_REPORT_FD is its number, QB_REPORT_TOKEN says what it is, so
that whatever gets that number later is not taken for it. A stage writes lines (`progress BYTES LABEL`, or JSON of a
failure) that are short enough for the kernel not to mix them with those of other stages. The pipe is read without
blocking, and never has to be read in time: a stage says nothing of its progress while others wait to be read.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
import termios

from qbtools.lean import TYPE_CHECKING, NamedTuple, suppress

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

FD = "QB_REPORT_FD"
TOKEN = "QB_REPORT_TOKEN"

MAX_LINE = 4096
"""Bytes of a line with its newline: PIPE_BUF of Linux."""

_MAX_TEXT = 1000
_UNREAD = 2048  # bytes that may wait in the pipe for a line of progress to be added
_MAX_LABEL = 200


class Failure(NamedTuple):
    """A stage that failed. status: its exit status. message, hint: what it said to the user.

    deferred: it met only the early end of its input, and has said nothing: message and hint are what it would have
    said."""

    program: str
    status: int
    message: str = ""
    hint: str | None = None
    deferred: bool = False


def token(fd: int) -> str:
    """What QB_REPORT_TOKEN says of a pipe. ValueError for a descriptor that is none, OSError for one that is closed."""
    found = os.fstat(fd)
    if not stat.S_ISFIFO(found.st_mode):
        raise ValueError("not a pipe")
    return f"{found.st_dev}:{found.st_ino}"


def environment(fd: int) -> dict[str, str]:
    """The variables for a program that inherits fd, the writing end of a pipe, under the same number."""
    return {FD: str(fd), TOKEN: token(fd)}


def inherited(environ: Mapping[str, str]) -> int:
    """The descriptor that the variables name, if it is what they say; else -1."""
    number = environ.get(FD, "")
    if not (number.isascii() and number.isdecimal() and len(number) < 8):
        return -1
    with suppress(OSError, ValueError):
        if token(int(number)) == environ.get(TOKEN) and fcntl.fcntl(int(number), fcntl.F_GETFL) & os.O_ACCMODE:
            return int(number)
    return -1


def tell(fd: int, **fields: object) -> None:
    """Writes a line; fd as inherited() gave it. A reader that is gone is nobody's error. Long texts are cut."""
    import json

    line, size = b"", _MAX_TEXT
    while not line or len(line) > MAX_LINE:
        short = {name: text[:size] if isinstance(text, str) else text for name, text in fields.items()}
        line = json.dumps(short).encode("ascii") + b"\n"
        size //= 2
    with suppress(OSError):
        os.write(fd, line)


def tell_progress(fd: int, done: int, label: str) -> None:
    """Writes how many bytes are done, and of what, unless earlier words still wait to be read."""
    with suppress(OSError):
        unread = int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
        if unread <= _UNREAD:
            text = label[:_MAX_LABEL].replace("\n", " ").encode("utf-8", "replace")
            os.write(fd, b"progress %d %s\n" % (done, text))


class Reports:
    """The reading side: a pipe, and what has come through it."""

    def __init__(self) -> None:
        self._ours, self.fd = os.pipe()
        os.set_blocking(self._ours, False)
        self.environment = environment(self.fd)
        self._rest = b""
        self.failures: list[Failure] = []
        """Stages that failed, in the order in which they said so."""
        self.stages: tuple[int, ...] = ()
        """What bash said of its last pipeline: its own status, then that of each stage. Empty until it has."""
        self.done = 0
        self.label = ""

    def fileno(self) -> int:
        """For poll."""
        return self._ours

    def collect(self) -> bool:
        """Takes what has come so far; False once all writers are gone."""
        while True:
            try:
                data = os.read(self._ours, 1 << 16)
            except BlockingIOError:
                return True
            if not data:
                return False
            *lines, self._rest = (self._rest + data).split(b"\n")
            self._rest = self._rest[-MAX_LINE:]
            for line in lines:
                if len(line) < MAX_LINE:
                    self._take(line)

    def _take(self, line: bytes) -> None:
        """One line. What no stage of ours would write is passed over: a CMD may hold the pipe, and write anything."""
        if line.startswith(b"stages "):
            words = line[7:].split()
            if len(words) > 1 and all(word.isdigit() for word in words):
                self.stages = tuple(int(word) for word in words)
            return
        if line.startswith(b"progress "):
            count, _, label = line[9:].partition(b" ")
            if count.isdigit():
                self.done, self.label = int(count), label.decode("utf-8", "replace")
            return
        import json

        try:
            fields: Any = json.loads(line)
        except (ValueError, RecursionError):
            return
        if isinstance(fields, dict) and (failure := failure_of(fields)):
            self.failures.append(failure)

    def close_writer(self) -> None:
        """Closes the end that is inherited, once the CMD is started."""
        os.close(self.fd)
        self.fd = -1

    def close(self) -> None:
        """Closes the reading end, the other one too if it is still open."""
        for fd in (self._ours, self.fd):
            if fd >= 0:
                os.close(fd)
        self._ours = self.fd = -1


def failure_of(fields: Mapping[str, Any]) -> Failure | None:
    """The failure that a line speaks of; None where it speaks of none."""
    program, status, hint = fields.get("program"), fields.get("status"), fields.get("hint")
    if not isinstance(program, str) or type(status) is not int or not 0 < status < 256:
        return None
    message = str(fields.get("message", ""))
    return Failure(program, status, message, None if hint is None else str(hint), bool(fields.get("deferred")))
