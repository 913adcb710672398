"""Reports of a stage to the program that started it: its progress, and its failure.

The program that runs a CMD gives it the write end of a pipe. QB_REPORT_FD is its number. QB_REPORT_TOKEN identifies
the pipe, in case another file gets the same number later. A stage writes lines (`progress BYTES LABEL`, or a failure
in JSON) that are short enough to be written in one piece. The pipe is read without blocking, and never has to be
read in time: a stage reports no progress while other lines wait to be read.
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
_UNREAD = 2048  # a line of progress is only added if at most so many bytes wait in the pipe
_MAX_LABEL = 200


class Failure(NamedTuple):
    """A stage that failed. status: its exit status. message, hint: the lines that it printed.

    deferred: it only met an early end of its input and has printed nothing: message and hint are the lines that it
    would have printed."""

    program: str
    status: int
    message: str = ""
    hint: str | None = None
    deferred: bool = False


def token(fd: int) -> str:
    """The value of QB_REPORT_TOKEN for a pipe. ValueError if fd is not a pipe, OSError if it is closed."""
    found = os.fstat(fd)
    if not stat.S_ISFIFO(found.st_mode):
        raise ValueError("not a pipe")
    return f"{found.st_dev}:{found.st_ino}"


def environment(fd: int) -> dict[str, str]:
    """The variables for a program that inherits fd, the write end of a pipe, under the same number."""
    return {FD: str(fd), TOKEN: token(fd)}


def inherited(environ: Mapping[str, str]) -> int:
    """The descriptor that the variables name, if the token fits; otherwise -1."""
    number = environ.get(FD, "")
    if not (number.isascii() and number.isdecimal() and len(number) < 8):
        return -1
    with suppress(OSError, ValueError):
        if token(int(number)) == environ.get(TOKEN) and fcntl.fcntl(int(number), fcntl.F_GETFL) & os.O_ACCMODE:
            return int(number)
    return -1


def tell(fd: int, **fields: object) -> None:
    """Writes a line to fd, a result of inherited(). It is no error if the reader has ended. Long texts are cut."""
    import json

    line, size = b"", _MAX_TEXT
    while not line or len(line) > MAX_LINE:
        short = {name: text[:size] if isinstance(text, str) else text for name, text in fields.items()}
        line = json.dumps(short).encode("ascii") + b"\n"
        size //= 2
    with suppress(OSError):
        os.write(fd, line)


def tell_progress(fd: int, done: int, label: str) -> None:
    """Writes the bytes that are done, and the label, unless earlier lines still wait to be read."""
    with suppress(OSError):
        unread = int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
        if unread <= _UNREAD:
            text = label[:_MAX_LABEL].replace("\n", " ").encode("utf-8", "replace")
            os.write(fd, b"progress %d %s\n" % (done, text))


def tell_failing(fd: int, status: int) -> bool:
    """Writes the status with which a stage will end when all of its processes have ended. Returns whether anybody reads
    it."""
    try:
        os.write(fd, b"failing %d\n" % status)
    except OSError:
        return False
    return True


class Reports:
    """The reading side: a pipe and the reports from it."""

    def __init__(self) -> None:
        self._ours, self.fd = os.pipe()
        os.set_blocking(self._ours, False)
        self.environment = environment(self.fd)
        self._rest = b""
        self.failures: list[Failure] = []
        """The stages that failed, in the order of their reports."""
        self.stages: tuple[int, ...] = ()
        """The report of bash on its last pipeline: its own status, then that of each stage. Empty before it."""
        self.done = 0
        self.label = ""

    def fileno(self) -> int:
        """For poll."""
        return self._ours

    def collect(self) -> bool:
        """Reads what is available now. False when all writers have ended."""
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
        """Handles one line. Unknown lines are ignored, because other programs of a CMD have the pipe too."""
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
        """Closes the inherited end, after the CMD was started."""
        os.close(self.fd)
        self.fd = -1

    def close(self) -> None:
        """Closes the read end, and also the other end if it is still open."""
        for fd in (self._ours, self.fd):
            if fd >= 0:
                os.close(fd)
        self._ours = self.fd = -1


def failure_of(fields: Mapping[str, Any]) -> Failure | None:
    """The failure that a line reports; None if it reports none."""
    program, status, hint = fields.get("program"), fields.get("status"), fields.get("hint")
    if not isinstance(program, str) or type(status) is not int or not 0 < status < 256:
        return None
    message = str(fields.get("message", ""))
    return Failure(program, status, message, None if hint is None else str(hint), bool(fields.get("deferred")))
