"""How a run ended: one status, and whatever must still be said, out of what all its stages said."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from qbtools.errors import Damaged, Failed, QbError, Refused, Told, UsageError, WrongPassphrase
from qbtools.reports import Failure

_SIGPIPE = 128 + signal.SIGPIPE
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

    statuses: of the stages in order, None where the run ended before they were told. failures: what stages said.
    Told where a stage has spoken; the words of one that met only the early end of its input where no other failed.
    Ended where the stages were ended by a signal that asks for that, or all that failed met a reader that has left.
    """
    if statuses is not None and not any(statuses):
        return
    spoken = next((failure for failure in failures if not failure.deferred), None)
    if spoken is not None:
        raise Told(spoken.status)
    for status in statuses or ():
        if status in _ENDING:
            raise Ended(status - 128)
    silent = [status for status in statuses or () if status not in (0, _SIGPIPE)]
    if failures and len(silent) <= len(failures):
        first = failures[0]
        error = _KINDS.get(first.status, Failed)(first.message, first.hint)
        error.program = first.program
        raise error
    if statuses is None:
        raise Failed("the stages ended without a report")
    if not silent:
        raise Ended(signal.SIGPIPE)
    number = silent[0] - 128
    if number in set(signal.Signals):
        raise Failed(f"a stage was killed by {signal.Signals(number).name}")
    raise Failed(f"a stage ended with status {silent[0]}")
