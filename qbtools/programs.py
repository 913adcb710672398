"""Programs that qbtools chooses (compressors, tar): finds them, runs them, and says how they ended.

A filter is started once for each file of a backup, so this module imports nothing that is slow to load.
"""

from __future__ import annotations

import fcntl
import os
import select

from qbtools.environments import chosen_environment
from qbtools.errors import Failed
from qbtools.latesignals import signals_later
from qbtools.lean import TYPE_CHECKING, signal, suppress
from qbtools.streams import SPOILT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)

_WORDS = 1 << 16  # bytes of a program's messages that are read

_SPOIL_LIMIT = 1000  # milliseconds


def find(name: str) -> str | None:
    """The path of the program in the first directory of PATH that has it; None if none has."""
    for place in os.environ.get("PATH", "").split(":"):
        path = f"{place or '.'}/{name}"
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    return None


class Child:
    """A running program. We read its messages instead of our stderr. If it prints too fast, some are lost."""

    def __init__(self, name: str, pid: int, words: int) -> None:
        self.name = name
        self.words = words
        """The descriptor to read its messages from; EOF means that it has ended."""
        self._pid = pid
        self._code: int | None = None

    def wait(self) -> int:
        """Waits for its end; its exit status, or the number of the signal that killed it, negative.

        BrokenPipeError if that is SIGPIPE: nobody reads its output.
        """
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        if self._code == -signal.SIGPIPE:
            raise BrokenPipeError
        return self._code

    def end(self) -> None:
        """Kills it if it still runs."""
        if self._code is None:
            with suppress(ProcessLookupError, ChildProcessError, BrokenPipeError):
                os.kill(self._pid, signal.SIGKILL)
                self.wait()

    def said(self) -> list[str]:
        """The lines of its messages, without its name in front."""
        os.set_blocking(self.words, False)
        try:
            text = os.read(self.words, _WORDS).decode("utf-8", "surrogateescape")
        except BlockingIOError:
            return []
        return [self.plain(line) for line in text.splitlines() if line.strip()]

    def plain(self, line: str) -> str:
        """A line of its messages, without its name in front."""
        return line.strip().removeprefix(f"{self.name}:").lstrip()

    def ending(self) -> str:
        """How it ended, in one line. To be called after wait() has reported a failure."""
        code = self.wait()
        if code < 0:
            return f"{self.name} was killed by {_signal_name(-code)}"
        reason = f": {said[0]}" if (said := self.said()) else ""
        return f"{self.name} ended with status {code}{reason}"


def _signal_name(number: int) -> str:
    from signal import Signals

    try:
        return Signals(number).name
    except ValueError:  # one of the real-time signals
        return f"signal {number}"


class running:
    """A context manager: starts argv, whose first word is a path. When the body is left, the program has ended.

    The program gets these descriptors, the chosen environment, and the default signal actions. Failed if it cannot
    be started. If this process is killed, the kernel kills the program too. Otherwise it would continue to the end of
    its data, and its output would look complete.
    """

    def __init__(
        self,
        argv: Sequence[str],
        stdin: int = 0,
        stdout: int = 1,
        extra: Mapping[str, str] | None = None,
        more: Sequence[int] = (),
        name: str | None = None,
    ) -> None:
        """extra: variables that it gets besides. more: descriptors that it gets, from 3 on. name: for messages."""
        self._argv = argv
        self._extra = extra or {}
        self._fds = stdin, stdout
        self._more = more
        self._name = name
        self._words = self._life = -1
        self._child: Child | None = None

    def __enter__(self) -> Child:
        self._words, theirs = os.pipe()
        watched, self._life = os.pipe()
        os.set_blocking(theirs, False)  # we may not read its messages: so it never waits for us
        try:
            with signals_later():
                self._child = self._start(theirs, watched)
        except BaseException:
            self._end()
            raise
        finally:
            os.close(theirs)
            os.close(watched)
        return self._child

    def _start(self, words: int, watched: int) -> Child:
        name = self._argv[0].rpartition("/")[2]
        # None may be at the number of another one: it would be overwritten before it is copied.
        fds = (*self._fds, words, *self._more, watched)
        copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, len(fds)) for fd in fds]
        try:
            pid = os.posix_spawn(
                self._argv[0],
                [name, *self._argv[1:]],
                {**chosen_environment(os.environ), **self._extra},
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, at) for at, fd in enumerate(copies)],
                setsigdef=_IGNORED_BY_PYTHON,
            )
        except OSError as error:
            raise Failed(f"cannot start {name}: {os.strerror(error.errno or 0)}") from error
        finally:
            for fd in copies:
                os.close(fd)
        # The kernel sends SIGKILL when the last writer of that pipe, this process, has ended. The watched end stays
        # open in the program. Unlike PR_SET_PDEATHSIG this needs no code between fork and exec.
        with suppress(OSError):
            fcntl.fcntl(watched, fcntl.F_SETOWN, pid)
            fcntl.fcntl(watched, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(watched, fcntl.F_SETFL, os.O_ASYNC)
        return Child(self._name or name, pid, self._words)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        if self._child is not None:
            self._child.end()
        self._close()

    def _close(self) -> None:
        os.close(self._words)
        os.close(self._life)


def spoil(fd: int, written: int | None = None) -> None:
    """Writes a text after a failure, so that the next stage does not take the output for complete.

    written: the bytes that were written before, if known. Then the output never has the size of a tar archive; after
    a compressor only the size can be checked. If nothing was written before, a single byte is written: qb-seal refuses
    so few bytes with every compression. Nothing is written if nobody reads within a second. OSError of the kernel if
    there is no space.
    """
    odd = b"\n" if written is not None and (written + len(SPOILT)) % 512 == 0 else b""
    text = b"\n" if written == 0 else odd + SPOILT
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    if poller.poll(_SPOIL_LIMIT):
        with suppress(BrokenPipeError):
            os.write(fd, text)
