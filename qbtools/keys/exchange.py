"""Runs a program that we choose: writes bytes to its standard input and reads a bounded standard output."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import stat
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from qbtools import programs
from qbtools.errors import Failed

PATIENCE = 60.0
"""Seconds until a program must have ended if there is no terminal on which it could ask the user."""

_BLOCK = 1 << 16
_LOW = re.compile(r"/(?:dev|proc/self)/fd/([0-9])|/dev/stdin", re.ASCII)  # a program that we start has others there
_SOON = 1.0  # seconds after which a program that still runs waits for somebody: then its words are passed on
_WAIT = 0.2  # seconds between two looks


class Outcome(NamedTuple):
    """How a program ended. status: 0 … 255. output: at most limit + 1 bytes. said: its lines on stderr."""

    status: int
    output: bytes
    said: list[str]


def has_terminal() -> bool:
    """Whether there is a terminal on which a program could ask the user."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class _kept_terminal:
    """A context manager that restores the settings of the terminal. A program that is killed while it asks for a
    passphrase would leave it without echo."""

    def __enter__(self) -> None:
        self._fd = -1
        self._before: list[Any] | None = None
        with contextlib.suppress(OSError, termios.error):
            self._fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
            self._before = termios.tcgetattr(self._fd)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._fd < 0:
            return
        with contextlib.suppress(OSError, termios.error):
            # In the background the program cannot have changed them, and we would be stopped if we tried.
            ours = os.tcgetpgrp(self._fd) == os.getpgrp()
            if self._before is not None and ours and termios.tcgetattr(self._fd) != self._before:
                termios.tcsetattr(self._fd, termios.TCSAFLUSH, self._before)
        os.close(self._fd)


def path_of(program: str, hint: str) -> str:
    """The path of the program. Failed, with the hint, if it is not installed."""
    path = programs.find(program)
    if path is None:
        raise Failed(f"the program {program} is not installed", hint)
    return path


def readable(path: str, what: str) -> str:
    """A path with which a program that we start can read the file.

    It is path itself, unless path names a low descriptor. what: the description of the file. Failed if the file cannot
    be read.
    """
    try:
        if not stat.S_ISFIFO(os.stat(path).st_mode):  # a FIFO can only be opened once
            os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        match = _LOW.fullmatch(path)
        return f"/dev/fd/{fcntl.fcntl(int(match[1] or 0), fcntl.F_DUPFD, 10)}" if match else path
    except OSError as error:
        raise Failed(f"cannot read {what} {path}: {error.strerror}") from error


def exchange(
    argv: Sequence[str],
    data: bytes,
    limit: int,
    warn: Callable[[str], None],
    extra: Mapping[str, str] | None = None,
    patience: float | None = None,
) -> Outcome:
    """Runs argv, whose first word is a path, with data on its standard input and the environment of chosen programs.

    limit: maximum bytes of output. A program that prints more is ended, and Outcome.output has limit + 1 bytes. warn:
    prints the messages of a program that succeeds or waits for the user. extra: more variables for it. patience:
    seconds until it must have ended. None: PATIENCE, or no limit if it could ask the user on a terminal.

    Failed if it cannot be started, is killed by a signal, or does not end in time.
    """
    if patience is None and not has_terminal():
        patience = PATIENCE
    theirs_in, ours_in = os.pipe()
    ours_out, theirs_out = os.pipe()
    fds = {theirs_in, ours_in, ours_out, theirs_out}

    def close(*some: int) -> None:
        for fd in some:
            if fd in fds:
                fds.remove(fd)
                os.close(fd)

    try:
        with _kept_terminal(), programs.running(argv, theirs_in, theirs_out, extra) as child:
            close(theirs_in, theirs_out)
            talk = _Talk(child, ours_in, ours_out, limit, warn)
            talk.feed(data, lambda: close(ours_in))
            talk.listen(patience)
            if len(talk.output) > limit:
                return Outcome(1, bytes(talk.output), talk.said)
            code = talk.end(patience)
            if code < 0:
                raise Failed(child.ending())
            if code == 0:
                talk.pass_on()
            return Outcome(code, bytes(talk.output), talk.said)
    finally:
        close(*list(fds))


class _Talk:
    """The input, output and messages of a running program."""

    def __init__(self, child: programs.Child, stdin: int, stdout: int, limit: int, warn: Callable[[str], None]) -> None:
        self._child = child
        self._stdin = stdin
        self._stdout = stdout
        self._limit = limit
        self._warn = warn
        self._begun = time.monotonic()
        self._told = 0
        self._data = memoryview(b"")
        self._fed: Callable[[], None] = lambda: None
        self.output = bytearray()
        self.said: list[str] = []

    def feed(self, data: bytes, fed: Callable[[], None]) -> None:
        """Sets the data that listen() writes to the program. fed: closes its standard input."""
        os.set_blocking(self._stdin, False)
        self._data, self._fed = memoryview(data), fed
        if not data:
            fed()

    def listen(self, patience: float | None) -> None:
        """Writes the data and reads the output until the program closes its output or has printed too much."""
        while len(self.output) <= self._limit:
            poller = select.poll()
            poller.register(self._stdout, select.POLLIN)
            if self._data:
                poller.register(self._stdin, select.POLLOUT)
            ready = [fd for fd, _event in poller.poll(_WAIT * 1000)]
            if self._stdin in ready and self._data:
                self._write()
            if self._stdout in ready:
                more = os.read(self._stdout, min(_BLOCK, self._limit + 1 - len(self.output)))
                if not more:
                    return
                self.output += more
            self._look(patience)

    def end(self, patience: float | None) -> int:
        """Waits for the end of the program. Returns its status, or the negative number of a signal."""
        poller = select.poll()
        poller.register(self._child.words, 0)  # only POLLHUP: EOF there means that it has ended
        while not poller.poll(_WAIT * 1000):
            self._look(patience)
        self._hear()
        try:
            return self._child.wait()
        except BrokenPipeError:
            raise Failed(f"{self._child.name} was killed by SIGPIPE") from None

    def pass_on(self) -> None:
        """Prints the messages of the program that have not been printed yet."""
        for line in self.said[self._told :]:
            self._warn(f"{self._child.name}: {line}")
        self._told = len(self.said)

    def _write(self) -> None:
        try:
            self._data = self._data[os.write(self._stdin, self._data[:_BLOCK]) :]
        except BrokenPipeError:  # it reads no more; its status shows whether that is an error
            self._data = self._data[:0]
        if not self._data:
            self._fed()

    def _look(self, patience: float | None) -> None:
        self._hear()
        lived = time.monotonic() - self._begun
        if lived > _SOON:
            self.pass_on()
        if patience is not None and lived > patience:
            raise Failed(f"{self._child.name} does not end: it was killed after {patience:.0f} seconds")

    def _hear(self) -> None:
        with contextlib.suppress(OSError):
            self.said += self._child.said()
