"""The size of a volume whose kind only works under another Python, for a program that is no stage."""

from __future__ import annotations

import os

import qbtools
from qbtools import programs
from qbtools.errors import OtherPython, QbError, of_status
from qbtools.lean import TYPE_CHECKING, number

if TYPE_CHECKING:
    from qbtools.volumes.kind import SourceOptions

_SIZE = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from qbtools import start; "
    "start.run('qb-volread', 'qbtools.commands.pipe.qb_volread')"
)
_MOST = 64  # bytes of the answer


def sizes(other: OtherPython, word: str, options: SourceOptions) -> tuple[int, int]:
    """What qb-volread --size prints under that Python. Its error, if it fails."""
    root = os.path.dirname(os.path.dirname(qbtools.__file__))
    state = [f"--state={options.state}"] if options.state else []
    argv = [other.interpreter, "-IS", "-c", _SIZE, root, "--size", *state, word]
    ours, theirs = os.pipe()
    try:
        with programs.running(argv, stdout=theirs, name="qb-volread") as child:
            os.close(theirs)
            theirs = -1
            text = _read(ours)
            status = child.wait()
            said = child.said()
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
    if status:
        raise _error(status, said, other)
    size, _, data = text.strip().partition(b"\t")
    return number(size) or 0, number(data) or 0


def _read(fd: int) -> bytes:
    found = b""
    while len(found) < _MOST and (more := os.read(fd, _MOST)):
        found += more
    return found


def _error(status: int, said: list[str], other: OtherPython) -> QbError:
    message = next((line.removeprefix("error: ") for line in said if line.startswith("error: ")), None)
    hint = next((line.removeprefix("hint: ") for line in said if line.startswith("hint: ")), None)
    if message is None:
        return other
    return of_status(status)(message, hint)
