"""How a run ended: one status, and whatever must still be said, out of what all its stages said."""

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
    """The run ended by this signal: so does the program, and says nothing."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def judge(statuses: Sequence[int] | None, failures: Sequence[Failure]) -> None:
    """Returns where all stages ended well; else raises what the program ends with.

    statuses: of the stages in order, None if the run ended before they were told. failures: what stages said.
    Told if a stage has told the user; the words of one that met only the early end of its input where no other
    failed. Ended where the stages were ended by a signal that asks for that, or all that failed lost their reader.
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
