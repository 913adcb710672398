"""How a CMD ended, and what that means for who ran it."""

from __future__ import annotations

import signal
from typing import NamedTuple

from qbtools.errors import OUR_STATUSES, Damaged, Failed, QbError, Told
from qbtools.reports import Failure

_SIGPIPE = 128 + signal.SIGPIPE


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
        text = f"ended with status {status}"
        if status > 128 and status - 128 in set(signal.Signals):
            text = f"was killed by {signal.Signals(status - 128).name}"
        return f"stage {at + 1} of {len(self.stages)} {text}" if at >= 0 and len(self.stages) > 1 else text

    def error(self, what: str) -> QbError:
        """The error that a CMD that failed is for us. what: names it in a message.

        A stage that has told the user gives its status and no second line (Told). One that met only the early end of
        its input counts where no other stage failed. The number of any other program means nothing here: Failed.
        """
        told = next((failure for failure in self.told if not failure.deferred), None)
        if told is not None:
            return Told(told.status if told.status in OUR_STATUSES else Failed.status)
        failing = [status for status in self.stages if status not in (0, _SIGPIPE)]
        if self.told and len(failing) <= len(self.told):
            first = self.told[0]
            kind = Damaged if first.status == Damaged.status else Failed
            return kind(f"{what}: {first.program}: {first.message}", first.hint)
        return Failed(f"{what}: the command {self.describe()}")

    def blame(self) -> tuple[int, int]:
        """Index and status of the leftmost stage whose status is neither 0 nor SIGPIPE's; -1 where it is bash's own."""
        if self.stages and self.status == next((s for s in reversed(self.stages) if s), 0):
            for at, status in enumerate(self.stages):
                if status not in (0, _SIGPIPE):
                    return at, status
        return -1, self.status
