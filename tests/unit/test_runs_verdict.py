"""The error that ends a run, chosen from the errors of all its stages."""

from __future__ import annotations

import signal

import pytest

from qbtools.errors import Damaged, Failed, QbError, Refused, Told, UsageError, WrongPassphrase
from qbtools.reports import Failure
from qbtools.runs.verdict import Ended, judge

SPOKEN = Failure("qb-seal", 5)
EARLY = Failure("qb-store", 4, "the archive ends early", "h", deferred=True)


@pytest.mark.parametrize("statuses", [(0,), (0, 0)])
@pytest.mark.parametrize("failures", [[], [EARLY]])
def test_all_is_well(statuses: tuple[int, ...], failures: list[Failure]) -> None:
    judge(statuses, failures)


@pytest.mark.parametrize(
    ("statuses", "failures", "kind", "status", "message"),
    [
        # the program that has reported decides
        ((5, 4), [SPOKEN, EARLY], Told, 5, ""),
        ((5, 4), [EARLY, SPOKEN], Told, 5, ""),
        ((5, 141), [SPOKEN], Told, 5, ""),
        ((141, 5), [SPOKEN], Told, 5, ""),
        ((3,), [Failure("qb-unseal", 3), SPOKEN], Told, 3, ""),
        ((143, 5), [SPOKEN], Told, 5, ""),
        (None, [SPOKEN], Told, 5, ""),
        # an early end of the input is only the cause if nothing else failed
        ((0, 4), [EARLY], Damaged, 4, "the archive ends early"),
        ((141, 4), [EARLY], Damaged, 4, "the archive ends early"),
        ((4,), [EARLY], Damaged, 4, "the archive ends early"),
        ((137, 4), [EARLY], Failed, 1, "a stage was killed by SIGKILL"),
        ((1, 4), [EARLY], Failed, 1, "a stage ended with status 1"),
        (None, [EARLY], Damaged, 4, "the archive ends early"),
        # no program reported anything
        (None, [], Failed, 1, "the stages ended without a report"),
        ((137, 0), [], Failed, 1, "a stage was killed by SIGKILL"),
        ((0, 139), [], Failed, 1, "a stage was killed by SIGSEGV"),
        ((127, 0), [], Failed, 1, "a stage ended with status 127"),
        ((141, 5), [], Failed, 1, "a stage ended with status 5"),
        ((255,), [], Failed, 1, "a stage ended with status 255"),
        # each status has its kind
        ((1,), [EARLY._replace(status=1)], Failed, 1, "the archive ends early"),
        ((2,), [EARLY._replace(status=2)], UsageError, 2, "the archive ends early"),
        ((3,), [EARLY._replace(status=3)], WrongPassphrase, 3, "the archive ends early"),
        ((5,), [EARLY._replace(status=5)], Refused, 5, "the archive ends early"),
        ((99,), [EARLY._replace(status=99)], Failed, 1, "the archive ends early"),
    ],
)
def test_what_is_raised(
    statuses: tuple[int, ...] | None, failures: list[Failure], kind: type[QbError], status: int, message: str
) -> None:
    with pytest.raises(QbError) as caught:
        judge(statuses, failures)
    error = caught.value
    assert (type(error), error.status, error.message) == (kind, status, message)
    if "early" in message:
        assert (error.program, error.hint) == ("qb-store", "h")


@pytest.mark.parametrize(
    ("statuses", "number"),
    [
        ((130, 4), signal.SIGINT),
        ((0, 143), signal.SIGTERM),
        ((129, 141), signal.SIGHUP),
        ((141, 0), signal.SIGPIPE),
        ((0, 141), signal.SIGPIPE),
        ((141, 141), signal.SIGPIPE),
    ],
)
def test_a_signal_that_asks_for_the_end(statuses: tuple[int, ...], number: int) -> None:
    with pytest.raises(Ended) as caught:
        judge(statuses, [EARLY] if 4 in statuses else [])
    assert caught.value.number == number
