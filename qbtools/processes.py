"""Runs a CMD, watches every stage of its pipe, and finds the one that failed.

A CMD is bash text. It runs under `bash -o pipefail -c` in a session of its own, so that all of it can be killed at
once. An EXIT trap in front of the text reports PIPESTATUS of the last pipeline: `pipefail` alone names the
rightmost stage that failed, while the leftmost is the cause (its neighbours only met SIGPIPE or EOF). Our own bash
text comes in the environment, so that `ps` shows only the user's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Mapping, Sequence

from qbtools.descriptors import widen_pipe, write_fd
from qbtools.endings import Ending, as_shown
from qbtools.environments import cmd_environment
from qbtools.errors import Failed, UsageError
from qbtools.reports import Reports

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL: time for a CMD to remove its snapshots and half-written targets."""

_SETTLE = 0.1
"""Seconds before SIGTERM: a process that bash has just forked, and that runs no program yet, would lose the signal."""

_SIGPIPE = 128 + signal.SIGPIPE

_LOOK = 200  # milliseconds between two checks whether bash has ended without a report

_REPORT = """unset QB_TRAP; trap 'printf "stages %s\\n" "$? ${PIPESTATUS[*]}" >&FD' EXIT"""

# Stands between us and a CMD that reads. It holds the write end of CMD's stdin too, so that our own death (SIGKILL
# included) never shows as an EOF there: the life pipe ends without the word "end", and all of CMD is killed first.
# `gone` is a pipe whose other end all of CMD holds: its bash may be gone before the stages that clean up.
_GUARD = """unset QB_GUARD
life=$2 hold=$3 settle=$4 grace=$5
exec {out}>&1
exec {gone}< <(exec {held}>&1 >&"$out" {out}>&- {life}<&- {hold}>&-; exec bash -o pipefail -c "$1")
pid=$!
trap : TERM
exec </dev/null >/dev/null 2>&1 {out}>&-
word=
read -r -u "$life" word
if [ "$word" = end ]; then
    exec {hold}>&-
    while wait "$pid"; status=$?; kill -0 "$pid"; do :; done
    exit "$status"
fi
read -r -t "$settle" -N 1 -u "$gone"
kill -TERM 0
read -r -t "$grace" -N 1 -u "$gone"
kill -KILL 0
"""


class Command:
    """A running CMD. The caller must end it with finish() or abort(); with abort() also if a signal left finish()."""

    def __init__(self, process: subprocess.Popen[bytes], reports: Reports, life: int, pipe: int) -> None:
        self._process = process
        self._reports: Reports | None = reports
        self._last = (0, "")
        self._life = life
        self.pipe = pipe
        """The descriptor to read CMD's stdout from, or to write its stdin to. Closed by finish() and abort()."""

    def finish(self) -> Ending:
        """Closes our side, which is EOF for a CMD that reads, and waits for the end."""
        if self._life >= 0:
            with contextlib.suppress(BrokenPipeError):  # the guard has ended: wait() says how
                os.write(self._life, b"end\n")
        self._close("pipe", "_life")
        self._await_report()
        code = self._process.wait()
        return self._ending(code)

    def _await_report(self) -> None:
        """Collects reports until bash has reported its statuses, or has ended without."""
        reports = self._reports
        poller = select.poll()
        if reports is not None:
            poller.register(reports, select.POLLIN)
        while reports is not None and reports.collect() and not reports.stages and self._process.poll() is None:
            poller.poll(_LOOK)

    def progress(self) -> tuple[int, str]:
        """The bytes that its stages report as done, and their label. May be called from any thread."""
        reports = self._reports
        if reports is None:
            return self._last
        with contextlib.suppress(OSError):  # the CMD is ending
            reports.collect()
        return reports.done, reports.label

    def ended(self, seconds: float) -> bool:
        """Waits at most so many seconds for the end of its bash. Returns whether it ended.

        The caller must then call finish() or abort().
        """
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def drained(self) -> bool:
        """For a CMD that reads: waits until everything written has been read. False if nobody reads any more."""
        poller = select.poll()
        poller.register(self.pipe, 0)  # POLLERR alone: the read end is closed
        while int.from_bytes(fcntl.ioctl(self.pipe, termios.FIONREAD, bytes(4)), sys.byteorder):
            if poller.poll(5):
                return False
        return True

    def abort(self) -> None:
        """Kills all of CMD with SIGTERM, after GRACE seconds with SIGKILL; only then its stdin is closed.

        May be called while another thread reads from `.pipe`: the pipe stays open, and the thread gets EOF. Does
        nothing if CMD has ended.
        """
        if self._reports is None:
            return
        guarded = self._life >= 0
        if guarded:
            self._close("_life")  # the guard ends CMD, as if we had died
        elif not self._gone(_SETTLE):
            self._signal(signal.SIGTERM)
        self._gone(GRACE + guarded)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._close_reports()
        if guarded:
            self._close("pipe")

    def _gone(self, seconds: float) -> bool:
        """Waits until all of CMD has ended: until no process holds the report pipe any more."""
        if self._reports is None:
            return True
        poller = select.poll()
        poller.register(self._reports, 0)  # POLLHUP alone
        return bool(poller.poll(seconds * 1000))

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _close(self, *names: str) -> None:
        for name in names:
            fd = getattr(self, name)
            setattr(self, name, -1)
            if fd >= 0:
                os.close(fd)

    def _close_reports(self) -> None:
        reports = self._reports
        if reports is not None:
            self._last = reports.done, reports.label
            self._reports = None
            reports.close()

    def _ending(self, code: int) -> Ending:
        status = as_shown(code)
        if self._reports is None:
            return Ending(status)
        self._reports.collect()
        if not status and self._reports.stages:  # its status is lost if somebody else has waited for it
            status = self._reports.stages[0]
        stages, told = self._reports.stages[1:], tuple(self._reports.failures)
        self._close_reports()
        return Ending(status, stages, told)


def start_source(text: str, environment: Mapping[str, str], stdin: int | None = None) -> Command:
    """Starts a CMD whose stdout is read from `.pipe`; its stdin is a descriptor, or /dev/null.

    environment is added to our own. Failed if bash cannot be started.
    """
    ours, theirs = os.pipe()
    given = subprocess.DEVNULL if stdin is None else stdin
    return _start(["bash", "-o", "pipefail", "-c"], text, environment, ours, theirs, given, theirs)


def start_plain(text: str) -> Command:
    """Starts a CMD without input or output: its stdin is /dev/null, its stdout is our stderr.

    Failed if bash cannot be started.
    """
    nothing, theirs = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), os.dup(2)
    return _start(["bash", "-o", "pipefail", "-c"], text, {}, nothing, theirs, subprocess.DEVNULL, theirs)


def start_sink(text: str, environment: Mapping[str, str], stdout: int | None = None) -> Command:
    """Starts a CMD whose stdin is written to `.pipe`; its stdout is a descriptor, or ours. environment as above.

    However this process ends, CMD gets EOF on its stdin only after finish(). Writing to `.pipe` fails with EPIPE when
    CMD has ended or closed its stdin. Failed if bash cannot be started.
    """
    theirs, ours = os.pipe()
    shell = ["bash", "-c", 'eval "$QB_GUARD"', "qb-command"]
    return _start(shell, text, environment, ours, theirs, theirs, stdout, True)


def _start(
    shell: Sequence[str],
    text: str,
    environment: Mapping[str, str],
    ours: int,
    theirs: int,
    stdin: int,
    stdout: int | None,
    guarded: bool = False,
) -> Command:
    widen_pipe(ours)
    reports = Reports()
    closing = [theirs]
    inherited = [reports.fd]
    # Not all of the text in an eval: that is one command, and would replace PIPESTATUS by its own status.
    arguments = [*shell, f'eval "$QB_TRAP"; {text}']
    scripts = {"QB_TRAP": _REPORT.replace("FD", str(reports.fd))}
    life = -1
    if guarded:
        life_end, life = os.pipe()
        closing.append(life_end)
        inherited += [life_end, ours]
        arguments += [str(life_end), str(ours), str(_SETTLE), str(GRACE)]
        scripts["QB_GUARD"] = _GUARD
    try:
        process = subprocess.Popen(
            arguments,
            stdin=stdin,
            stdout=stdout,
            pass_fds=inherited,
            env={**cmd_environment(os.environ), **environment, **reports.environment, **scripts},
            start_new_session=True,
        )
    except OSError as error:
        reports.close()
        for fd in (ours, life):
            if fd >= 0:
                os.close(fd)
        raise Failed(f"cannot start bash: {error.strerror}") from error
    finally:
        for fd in closing:
            os.close(fd)
    reports.close_writer()
    return Command(process, reports, life, ours)


def fed(content: bytes) -> int:
    """A pipe to which a thread writes content. It is not an error if the reader does not read all of it."""
    theirs, ours = os.pipe()

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError):
            write_fd(ours, content)
        os.close(ours)

    threading.Thread(target=feed, daemon=True).start()
    return theirs


def capture(text: str, limit: int, check: Callable[[Ending], None], data: bytes | None = None) -> bytes:
    """The output of a CMD, at most limit bytes. check is called with its ending and may raise an error.

    check is not called if the CMD died of SIGPIPE because it printed more than limit bytes, or if only stages before
    the last one died of SIGPIPE. data: for its standard input, None: /dev/null.
    """
    stdin = None if data is None else fed(data)
    try:
        command = start_source(text, {}, stdin)
    finally:
        if stdin is not None:
            os.close(stdin)
    found = b""
    try:
        while len(found) < limit and (more := os.read(command.pipe, limit - len(found))):
            found += more
        ending = command.finish()
    except BaseException:
        command.abort()
        raise
    last_ended_well = _SIGPIPE in ending.stages and ending.stages[-1] == 0
    if ending.status != _SIGPIPE or not (len(found) == limit or last_ended_well):
        check(ending)
    return found


def must_succeed(what: str) -> Callable[[Ending], None]:
    """A check for capture(): Failed if the CMD, which is called what in the message, has failed."""

    def check(ending: Ending) -> None:
        if ending.failed:
            raise Failed(f"{what} {ending.describe()}")

    return check


def check_cmd(text: str, option: str) -> str:
    """Returns text. UsageError if it is empty, because bash would do nothing and succeed."""
    if not text.strip():
        raise UsageError(f"{option}: the command is empty")
    return text
