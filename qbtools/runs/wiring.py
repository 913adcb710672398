"""Runs the stages: a bash that wires them is our child, and two pipes connect it with us.

One pipe carries a list or routes to the stages. All stages report on the other pipe. At the end the bash reports the
statuses of its pipeline: a run without that report has failed, whatever else is known.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from qbtools import reports
from qbtools.environments import cmd_environment
from qbtools.errors import Failed
from qbtools.reports import Failure
from qbtools.runs import processtree
from qbtools.runs.hearing import Happened, Hearing, Stages

_BLOCK = 1 << 16
_TICK = 200  # milliseconds: a signal that arrives just before poll() begins is handled after it
_HUGE_PAGES = "glibc.malloc.hugetlb=1"  # scrypt reads 128 MiB in random order, which is a tenth faster with huge pages
_LAST = 5.0  # seconds for the bash to end when no stage reports any more


class Wiring:
    """A pipe that runs in a `with`. If anything failed, all processes below this one are ended at the end."""

    def __init__(
        self,
        script: str,
        command: str,
        groups: Mapping[str, Sequence[str]],
        voice: Sequence[str],
        stdin: int,
        keep: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        stdout: int | None = None,
    ) -> None:
        """script: the bash that the `with` starts. command: the name of the pipe. groups: arguments for its stages.

        voice: -q or -v, for stages in a CMD. stdin: its standard input. keep: further descriptors for the stages.
        environment: further variables for the stages. stdout: their standard output; None: ours.
        """
        self._script = script
        self._words = [word for name, words in groups.items() for word in (f":{name}", *(f"={word}" for word in words))]
        self._command = command
        self._voice = voice
        self._stdin = stdin
        self._keep = keep
        self._environment = environment or {}
        self._stdout = stdout
        self._hearing = Hearing()
        self._pending = bytearray()
        self._all_told = False
        self._failures: list[Failure] = []
        self._statuses: tuple[int, ...] | None = None
        self._list = self._report = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._before: Any = None

    def __enter__(self) -> Wiring:
        """Starts the stages. Failed if they cannot be started."""
        processtree.adopt_orphans()
        try:
            self._start()
        except BaseException:  # a signal may arrive when this is half done
            self.stop()
            raise
        return self

    def _start(self) -> None:
        theirs: list[int] = []
        try:
            theirs_list, self._list = os.pipe()
            theirs.append(theirs_list)
            self._report, theirs_report = os.pipe()
            theirs.append(theirs_report)
            os.set_blocking(self._list, False)
            os.set_blocking(self._report, False)
            environment = {
                **cmd_environment(os.environ),
                **self._environment,
                **reports.environment(theirs_report),
                "QB_RUN_PID": str(os.getpid()),
                "PATH": f"{os.path.dirname(self._script)}:{os.environ['PATH']}",
                "QB_VOICE": " ".join(self._voice),
                "LC_ALL": "C.UTF-8",
                "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", _HUGE_PAGES),
            }
            argv = [self._script, self._command, *map(str, theirs), *self._words]
            inherited = [*theirs, *self._keep]
            self._process = subprocess.Popen(
                argv, stdin=self._stdin, stdout=self._stdout, pass_fds=inherited, env=environment
            )
        except OSError as error:
            raise Failed(f"cannot start {self._script}: {error.strerror}") from error
        finally:
            for fd in theirs:
                os.close(fd)
        self._before = signal.signal(signal.SIGUSR1, lambda *_: self._hand_on(signal.SIGUSR1))

    def tell(self, text: str | bytes) -> None:
        """Queues a part of the list or of the routes. run() writes it."""
        self._pending += os.fsencode(text) if isinstance(text, str) else text
        self._write()

    def tell_all(self, text: str | bytes = b"") -> None:
        """Queues the last part."""
        self.tell(text)
        self._all_told = True
        self._write()

    def run(self, happened: Callable[[Happened], None]) -> tuple[tuple[int, ...] | None, list[Failure]]:
        """Calls happened for each event of the stages, until all stages have ended.

        Returns their statuses (None if not reported) and the failures that they reported, for verdict.judge. Errors of
        happened are passed on.
        """
        while True:
            ended = self._has_ended()
            poller = select.poll()
            poller.register(self._report, select.POLLIN)
            if self._pending:
                poller.register(self._list, select.POLLOUT)
            ready = [fd for fd, _event in poller.poll(0 if ended else _TICK)]
            if self._list in ready:
                self._write()
            if self._report in ready:
                if not self._hear(happened):
                    self._await_end()
                    return self._statuses, self._failures
            elif ended:  # a process that still has the report pipe open does not know how the pipeline ended
                return self._statuses, self._failures

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _await_end(self) -> None:
        """Waits for the end of the bash, which has nothing left to do; but not for a bash that is stopped."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_LAST)

    def _hear(self, happened: Callable[[Happened], None]) -> bool:
        """Reads the reports so far. False when no stage is left to report."""
        try:
            data = os.read(self._report, _BLOCK)
        except BlockingIOError:
            return True
        for said in self._hearing.take(data):
            if isinstance(said, Happened):
                happened(said)
            elif isinstance(said, Stages):
                self._statuses = (*(self._statuses or ()), *said.statuses)  # a part of a pipe reports only a failure
            else:
                self._failures.append(said)
        return bool(data)

    def _write(self) -> None:
        """Writes as much as the pipe accepts. Closes it after the last part, or if nobody reads it any more."""
        while self._pending and self._list >= 0:
            try:
                del self._pending[: os.write(self._list, self._pending[:_BLOCK])]
            except BlockingIOError:
                return
            except BrokenPipeError:
                self._pending.clear()
                self._all_told = True
        if self._list < 0:
            self._pending.clear()
        elif self._all_told:
            os.close(self._list)
            self._list = -1

    def _hand_on(self, number: int) -> None:
        """Sends a signal to the stages. The bash ignores it, and a stage ignores it until it can handle it."""
        if self._process is None:
            return
        for pid in processtree.children_of(self._process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """Ends all processes below this one, within seconds. Failed if one does not end."""
        left = processtree.end_all()
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0)
        self._close()
        if left:
            raise Failed(f"process {left[0]} does not end, even after SIGKILL")

    def _close(self) -> None:
        for fd in (self._list, self._report):
            if fd >= 0:
                os.close(fd)
        self._list = self._report = -1
        if self._before is not None:
            signal.signal(signal.SIGUSR1, self._before)
            self._before = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None and self._has_ended() and self._statuses is not None and not any(self._statuses):
            self._close()
        else:  # a process in a CMD may outlive its parent
            self.stop()
