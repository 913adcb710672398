"""Finds out how the stages of a pipe ended, which one caused a failure, and which error the caller reports."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from qbtools.errors import OUR_STATUSES, Damaged, Failed, QbError, Told, Truncated
from qbtools.lean import NamedTuple
from qbtools.reports import Failure

_SIGPIPE = 128 + signal.SIGPIPE


def failing(stages: Sequence[int]) -> list[int]:
    """Indexes of the stages that failed themselves: their status is neither 0 nor that of SIGPIPE."""
    return [at for at, status in enumerate(stages) if status not in (0, _SIGPIPE)]


def cause(stages: Sequence[int], told: Sequence[Failure]) -> Failure | None:
    """The failure that decides the status of a pipe. None if no report explains the status.

    stages: their statuses, in order. told: the failures that they reported. A stage that has printed its message
    decides. A stage that only met an early end of its input (deferred) decides if no other stage failed.
    """
    spoken = next((failure for failure in told if not failure.deferred), None)
    if spoken is None and told and len(failing(stages)) <= len(told):
        return told[0]
    return spoken


def as_shown(code: int) -> int:
    """The status that a shell shows for the code of a process (as in subprocess): 128 + n for the signal -n."""
    return 128 - code if code < 0 else code


def how(status: int) -> str:
    """Text for a status as a shell shows it: `was killed by SIGTERM`, `ended with status 1`."""
    if status > 128 and status - 128 in set(signal.Signals):
        return f"was killed by {signal.Signals(status - 128).name}"
    return f"ended with status {status}"


class Ending(NamedTuple):
    """How a CMD ended: the status of bash (128 + n for signal n), the status of each stage of its last pipeline, and
    the failures that stages of qbtools reported, in order."""

    status: int
    stages: tuple[int, ...] = ()
    told: tuple[Failure, ...] = ()

    @property
    def failed(self) -> bool:
        return self.status != 0

    def describe(self) -> str:
        """Which stage failed, and how: `stage 1 of 3 ended with status 4`."""
        at, status = self.blame()
        which = f"stage {at + 1} of {len(self.stages)} " if at >= 0 and len(self.stages) > 1 else ""
        return which + how(status)

    def error(self, what: str) -> QbError:
        """The error to raise for a CMD that failed. what: its name in a message.

        If the stage that decides (see cause()) has printed its message, the error is Told with its status, and no
        second line is printed. If it only met an early end of its input, the error is Truncated: a program that runs
        beside this one may know the reason. The status of any other program has no meaning here, so it is Failed.
        """
        first = cause(self.stages, self.told)
        if first is not None and not first.deferred:
            status = first.status if first.status in OUR_STATUSES else Failed.status
            return Told(status, f"{first.program}: {first.message}" if first.message else "")
        if first is not None:
            kind = Truncated if first.status == Damaged.status else Failed
            return kind(f"{what}: {first.program}: {first.message}", first.hint)
        return Failed(f"{what}: the command {self.describe()}")

    def blame(self) -> tuple[int, int]:
        """Index and status of the leftmost stage whose status is neither 0 nor that of SIGPIPE; -1 for bash itself."""
        if self.stages and self.status == next((s for s in reversed(self.stages) if s), 0):
            for at in failing(self.stages):
                return at, self.stages[at]
        return -1, self.status
