"""How the stages of a pipe ended, which of them is to blame, and what a CMD that failed means for who ran it."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import NamedTuple

from qbtools.errors import OUR_STATUSES, Damaged, Failed, QbError, Told
from qbtools.reports import Failure

_SIGPIPE = 128 + signal.SIGPIPE


def failing(stages: Sequence[int]) -> list[int]:
    """Indexes of the stages that failed by themselves: the status is neither 0 nor that of a reader that left."""
    return [at for at, status in enumerate(stages) if status not in (0, _SIGPIPE)]


def cause(stages: Sequence[int], told: Sequence[Failure]) -> Failure | None:
    """The failure that decides how a pipe ended. None where nothing that was told explains it.

    stages: their statuses, in order. told: what they have said of themselves. A stage that has told the user decides.
    One that met only the early end of its input (deferred) does so where no other stage failed.
    """
    spoken = next((failure for failure in told if not failure.deferred), None)
    if spoken is None and told and len(failing(stages)) <= len(told):
        return told[0]
    return spoken


def how(status: int) -> str:
    """How a program with this status, as a shell shows it, ended: `was killed by SIGTERM`, `ended with status 1`."""
    if status > 128 and status - 128 in set(signal.Signals):
        return f"was killed by {signal.Signals(status - 128).name}"
    return f"ended with status {status}"


class Ending(NamedTuple):
    """How a CMD ended: the status of bash (128 + n for signal n), that of each stage of its last pipeline, and what
    stages of ours have said of themselves, in order."""

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
        """The error that a CMD that failed is for us. what: names it in a message.

        A stage that has told the user gives its status and no second line (Told). cause() says which stage decides.
        The number of any other program means nothing here: Failed.
        """
        first = cause(self.stages, self.told)
        if first is not None and not first.deferred:
            status = first.status if first.status in OUR_STATUSES else Failed.status
            return Told(status, f"{first.program}: {first.message}" if first.message else "")
        if first is not None:
            kind = Damaged if first.status == Damaged.status else Failed
            return kind(f"{what}: {first.program}: {first.message}", first.hint)
        return Failed(f"{what}: the command {self.describe()}")

    def blame(self) -> tuple[int, int]:
        """Index and status of the leftmost stage whose status is neither 0 nor SIGPIPE's; -1 where it is bash's own."""
        if self.stages and self.status == next((s for s in reversed(self.stages) if s), 0):
            for at in failing(self.stages):
                return at, self.stages[at]
        return -1, self.status
