"""Decides how a run ended: one status, and possibly a message, from the reports of all stages."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from qbtools.endings import cause, failing, how
from qbtools.errors import Damaged, Failed, QbError, Refused, Told, UsageError, WrongPassphrase
from qbtools.reports import Failure

_ENDING = (128 + signal.SIGHUP, 128 + signal.SIGINT, 128 + signal.SIGTERM)
_KINDS: dict[int, type[QbError]] = {
    kind.status: kind for kind in (Failed, UsageError, WrongPassphrase, Damaged, Refused)
}


class Ended(Exception):
    """The run was ended by this signal. The program ends with it too, without a message."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def judge(statuses: Sequence[int] | None, failures: Sequence[Failure]) -> None:
    """Returns if all stages succeeded; otherwise raises the error of the program.

    statuses: of the stages in order, None if they were not reported. failures: the reports of stages.
    Told if a stage has printed its message. The message of a stage that only met an early end of its input is used if
    no other stage failed. Ended if a signal ended the stages, or if all that failed lost their reader.
    """
    if statuses is not None and not any(statuses):
        return
    stages = statuses or ()
    first = cause(stages, failures)
    if first is not None and not first.deferred:
        raise Told(first.status, first.message)
    for status in stages:
        if status in _ENDING:
            raise Ended(status - 128)
    if first is not None:
        error = _KINDS.get(first.status, Failed)(first.message, first.hint)
        error.program = first.program
        raise error
    if statuses is None:
        raise Failed("the stages ended without a report")
    for at in failing(statuses):
        raise Failed(f"a stage {how(statuses[at])}")
    raise Ended(signal.SIGPIPE)
