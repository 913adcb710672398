"""Runs the stages: a bash that wires them is our child, and two pipes connect it with us.

One pipe carries a list or routes to the stages, and a run may have more of them. All stages report on the other pipe.
At the end the bash reports the statuses of its pipeline: a run without that report has failed, whatever else is known.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType

from qbtools import processtree, reports
from qbtools.environments import cmd_environment
from qbtools.errors import Failed
from qbtools.lean import TYPE_CHECKING
from qbtools.reports import Failure
from qbtools.runs.eventpipe import EventPipe
from qbtools.runs.hearing import Failing, Happened, Hearing, Said, Stages
from qbtools.runs.listpipe import ListPipe

if TYPE_CHECKING:
    from typing import Any

_BLOCK = 1 << 16
_TICK = 200  # milliseconds: a signal that arrives just before poll() begins is handled after it
_HUGE_PAGES = "glibc.malloc.hugetlb=1"  # scrypt reads 128 MiB in random order, which is a tenth faster with huge pages
_LAST = 5.0  # seconds for the bash to end when no stage reports any more
_AFTER = 2.0  # seconds for the others to end after a stage has failed: one may wait for it, and know nothing of it


def _words(groups: Mapping[str, Sequence[str]]) -> list[str]:
    return [word for name, words in groups.items() for word in (f":{name}", *(f"={word}" for word in words))]


class Wiring:
    """A pipe that runs in a `with`. If anything failed, all processes below this one are ended at the end.

    A second `with` inside of the first one does not start it again, but ends it.
    """

    def __init__(
        self,
        script: str,
        command: str,
        groups: Mapping[str, Sequence[str]] | None,
        voice: Sequence[str],
        stdin: int,
        keep: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        stdout: int | None = None,
        lists: Sequence[ListPipe] = (),
        events: Sequence[EventPipe] = (),
    ) -> None:
        """script: the bash that the `with` starts. command: the name of the pipe. groups: arguments for its stages;
        None: give() gives them later.

        voice: -q or -v, for stages in a CMD. stdin: its standard input, or DEVNULL of subprocess. keep: further
        descriptors for the stages. environment: further variables for the stages. stdout: their standard output; None:
        ours. lists, events: more pipes, of which the words name the ends for the stages; they are used and closed here.
        """
        self._script = script
        self._late = ListPipe() if groups is None else None
        self._words = [":later", f"={self._late.reader}"] if self._late else _words(groups or {})
        self._command = command
        self._voice = voice
        self._stdin = stdin
        self._keep = keep
        self._environment = environment or {}
        self._stdout = stdout
        self._further = lists
        self._events = events
        self._hearing = Hearing()
        self._failures: list[Failure] = []
        self._statuses: tuple[int, ...] | None = None
        self._failing: int | None = None
        self._list: ListPipe | None = None
        self._report = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._before: Any = None

    def __enter__(self) -> Wiring:
        """Starts the stages. Failed if they cannot be started."""
        if self._process is not None:
            return self
        if self._late is None:
            processtree.adopt_orphans()
        try:
            self._start()
        except BaseException:  # a signal may arrive when this is half done
            self.stop()
            raise
        return self

    def _start(self) -> None:
        theirs_report = -1
        self._list = ListPipe()
        try:
            self._report, theirs_report = os.pipe()
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
            argv = [self._script, self._command, str(self._list.reader), str(theirs_report), *self._words]
            lists, events = (one.reader for one in self._lists()), (one.writer for one in self._events)
            inherited = [theirs_report, *lists, *events, *self._keep]
            self._process = subprocess.Popen(
                argv, stdin=self._stdin, stdout=self._stdout, pass_fds=inherited, env=environment
            )
        except OSError as error:
            raise Failed(f"cannot start {self._script}: {error.strerror}") from error
        finally:
            for one in self._lists():
                one.close_reader()
            for event in self._events:
                event.close_writer()
            if theirs_report >= 0:
                os.close(theirs_report)
        self._before = signal.signal(signal.SIGUSR1, lambda *_: self._hand_on(signal.SIGUSR1))

    def _lists(self) -> list[ListPipe]:
        return [one for one in (self._list, self._late, *self._further) if one is not None]

    def give(self, groups: Mapping[str, Sequence[str]]) -> None:
        """Gives the arguments for the stages, if that was not done before the start.

        Only from now on orphans below this process are ended with the stages. A daemon that a command of the user
        started before is none of them.
        """
        if self._late is not None:
            processtree.adopt_orphans()
            self._late.tell_all("".join(f"{word}\0" for word in (*_words(groups), "end")))

    def tell(self, text: str | bytes) -> None:
        """Queues a part of the list or of the routes. run() writes it."""
        if self._list is not None:
            self._list.tell(text)

    def tell_all(self, text: str | bytes = b"") -> None:
        """Queues the last part."""
        if self._list is not None:
            self._list.tell_all(text)

    def run(self, happened: Callable[[Happened], None]) -> tuple[tuple[int, ...] | None, list[Failure]]:
        """Calls happened for each event of the stages, until all stages have ended.

        Returns their statuses (None if not reported) and the failures that they reported, for verdict.judge. Errors of
        happened are passed on.
        """
        until: float | None = None
        while until is None or time.monotonic() < until:
            ended = self._has_ended()
            reported = self._exchange(0 if ended else _TICK)
            going_on = not reported or self._hear(happened)
            for events in self._events:
                self._handle(events.take(), events.handler or happened)
            if not going_on:
                self._await_end()
                break
            if ended and not reported:  # who still has the report pipe open does not know how the pipeline ended
                break
            if until is None and (self._failing or any(self._statuses or ())):
                until = time.monotonic() + _AFTER
        if self._failing and not any(self._statuses or ()):
            return (self._failing,), self._failures
        return self._statuses, self._failures

    def _exchange(self, milliseconds: int) -> bool:
        """Waits for the stages, and writes what they read now. Returns whether there is a report on the common pipe."""
        poller = select.poll()
        poller.register(self._report, select.POLLIN)
        writing = {one.fileno(): one for one in self._lists() if one.waiting}
        for fd in writing:
            poller.register(fd, select.POLLOUT)
        for events in self._events:
            if not events.ended:
                poller.register(events, select.POLLIN)
        ready = [fd for fd, _event in poller.poll(milliseconds)]
        for fd in ready:
            if fd in writing:
                writing[fd].write()
        return self._report in ready

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
        self._handle(self._hearing.take(data), happened)
        return bool(data)

    def _handle(self, reported: Iterable[Said], happened: Callable[[Happened], None]) -> None:
        for said in reported:
            if isinstance(said, Happened):
                happened(said)
            elif isinstance(said, Stages):
                self._statuses = (*(self._statuses or ()), *said.statuses)  # a part of a pipe reports only a failure
            elif isinstance(said, Failing):
                self._failing = self._failing or said.status
            else:
                self._failures.append(said)

    def _hand_on(self, number: int) -> None:
        """Sends a signal to the stages. The bash ignores it, and a stage ignores it until it can handle it."""
        if self._process is None:
            return
        for pid in processtree.children_of(self._process.pid, through=os.path.basename(self._script)):
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
        for one in self._lists():
            one.close()
        for events in self._events:
            events.close()
        if self._report >= 0:
            os.close(self._report)
        self._report = -1
        if self._before is not None:
            signal.signal(signal.SIGUSR1, self._before)
            self._before = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        well = self._statuses is not None and not any(self._statuses) and not self._failing
        if kind is None and well and self._has_ended():
            self._close()
        else:  # a process in a CMD may outlive its parent
            self.stop()
