"""Runs the program of a host for one verb, with limits of size and time, and ends it if the run ends."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

from qbtools import processtree
from qbtools.environments import cmd_environment
from qbtools.errors import Failed, UsageError
from qbtools.latesignals import signals_later
from qbtools.lean import NamedTuple
from qbtools.streams import BLOCK

_GRACE = 1.0  # seconds between SIGTERM and SIGKILL for a host that must be stopped
_TICK = 200  # milliseconds: a signal that arrives just before poll() begins is handled after it
_SAID = 1 << 16  # bytes of its stderr that are read


class Answer(NamedTuple):
    """data: its output, or a little more than the limit; status: as subprocess has it; said: the end of its stderr."""

    data: bytes
    status: int
    said: str


class _LateError(Exception):
    """The program has not ended in time."""


def find(program: str, name: str) -> str:
    """The path of the program for hosts of the kind name: beside this program, or in PATH. UsageError without one."""
    beside = os.path.dirname(os.path.realpath(sys.argv[0]))
    found = shutil.which(program, path=beside) or shutil.which(program)
    if found is None:
        raise UsageError(
            f"there is no host of the kind {name}", f"{program} is neither beside this program nor in PATH"
        )
    return found


def run(
    argv: list[str],
    document: bytes | None,
    limit: int,
    seconds: float | None,
    named: str,
    settings: Mapping[str, str],
) -> Answer | None:
    """The answer of a program that gets document, or nothing, as its input. None if it has not ended after seconds.

    limit: the most bytes of output; a program that prints more is ended. named: the call, for a message. settings: more
    variables for its environment. Failed if it cannot be started. If a signal or the end of seconds ends this call, all
    processes below this one are ended within a little more than a second, because the program may have started others.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    errors = os.memfd_create("stderr")  # it cannot block if nobody reads it
    given = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) if document is None else _in_memory(document)
    try:
        process = _started(argv, given, errors, named, settings)
        try:
            data = _read(process, limit, deadline)
            status = 0 if len(data) > limit else _end(process, deadline)
        except _LateError:
            processtree.end_all(_GRACE)
            return None
        except BaseException:
            processtree.end_all(_GRACE)
            raise
        finally:
            _stop(process)
        said = os.pread(errors, _SAID, max(os.fstat(errors).st_size - _SAID, 0)).decode("utf-8", "replace")
        return Answer(data, status, said)
    finally:
        os.close(errors)
        os.close(given)


def _started(
    argv: list[str], stdin: int, stderr: int, named: str, settings: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    environment = {**cmd_environment(os.environ), **settings}
    processtree.adopt_orphans()
    process = None
    try:
        with signals_later():
            process = subprocess.Popen(
                argv, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, bufsize=0, env=environment
            )
    except OSError as error:
        raise Failed(f"cannot run {named}: {error.strerror}") from error
    except BaseException:
        if process is not None:  # a signal arrived while it started
            _stop(process)
        raise
    return process


def _read(process: subprocess.Popen[bytes], limit: int, deadline: float | None) -> bytes:
    """Its output to its end, or a little more than limit bytes. _LateError if it has not ended by then."""
    out = process.stdout.fileno() if process.stdout is not None else -1
    data = bytearray()
    poller = select.poll()
    poller.register(out, select.POLLIN)
    while len(data) <= limit:
        if poller.poll(_TICK):
            if not (more := os.read(out, BLOCK)):
                break
            data += more
        elif deadline is not None and time.monotonic() > deadline:
            raise _LateError
    return bytes(data)


def _end(process: subprocess.Popen[bytes], deadline: float | None) -> int:
    """Its status. _LateError if it has not ended by then."""
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(_TICK / 1000)
        if deadline is not None and time.monotonic() > deadline:
            raise _LateError


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a program that still runs, and waits for its end."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _in_memory(document: bytes) -> int:
    """A descriptor at the beginning of a file in memory with the document."""
    fd = os.memfd_create("document")
    view = memoryview(document)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
