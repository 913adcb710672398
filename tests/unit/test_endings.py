"""How a CMD ended, and what that means for the program that ran it."""

from __future__ import annotations

import pytest

from qbtools.endings import Ending, cause
from qbtools.errors import Failed, QbError, Told, Truncated
from qbtools.reports import Failure

SPOKEN = Failure("qb-volwrite", 5)
EARLY = Failure("qb-tarextract", 4, "standard input ends early", "look before it", deferred=True)


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        (Ending(1), "ended with status 1"),
        (Ending(3, (3,)), "ended with status 3"),
        (Ending(137), "was killed by SIGKILL"),
        (Ending(255), "ended with status 255"),
        (Ending(4, (0, 4, 0)), "stage 2 of 3 ended with status 4"),
        (Ending(4, (2, 4)), "stage 1 of 2 ended with status 2"),
        (Ending(4, (141, 4)), "stage 2 of 2 ended with status 4"),
        (Ending(143, (143, 0)), "stage 1 of 2 was killed by SIGTERM"),
        # bash's own status has nothing to do with its last pipeline: exit 7 behind it
        (Ending(7, (1, 1)), "ended with status 7"),
        (Ending(141, (141, 0)), "was killed by SIGPIPE"),
    ],
)
def test_what_is_said_of_it(ending: Ending, text: str) -> None:
    assert ending.failed
    assert ending.describe() == text


@pytest.mark.parametrize(
    ("ending", "kind", "status", "message"),
    [
        (Ending(5, (0, 5), (SPOKEN,)), Told, 5, ""),
        (Ending(5, (0, 5), (EARLY, SPOKEN)), Told, 5, ""),
        (Ending(2, (2,), (Failure("qb-tarextract", 2),)), Told, 1, ""),
        (Ending(130, (130,), (Failure("qb-volread", 130),)), Told, 1, ""),
        (Ending(4, (0, 4), (EARLY,)), Truncated, 4, "x: qb-tarextract: standard input ends early"),
        (Ending(4, (141, 4), (EARLY,)), Truncated, 4, "x: qb-tarextract: standard input ends early"),
        (Ending(4, (1, 4), (EARLY._replace(status=1),)), Failed, 1, "x: the command stage 1 of 2 ended with status 1"),
        (Ending(4, (137, 4), (EARLY,)), Failed, 1, "x: the command stage 1 of 2 was killed by SIGKILL"),
        (Ending(1, (0, 1), (EARLY._replace(status=1),)), Failed, 1, "x: qb-tarextract: standard input ends early"),
        (Ending(4, (4,)), Failed, 1, "x: the command ended with status 4"),
        (Ending(3, (0, 3)), Failed, 1, "x: the command stage 2 of 2 ended with status 3"),
    ],
)
def test_the_error_that_it_is(ending: Ending, kind: type[QbError], status: int, message: str) -> None:
    error = ending.error("x")
    assert (type(error), error.status, error.message) == (kind, status, message)
    assert error.hint == (EARLY.hint if "early" in message else None)


def test_one_that_succeeded() -> None:
    assert not Ending(0, (0, 0)).failed
    assert not Ending(0, (141, 0)).failed, "bash says so: its pipefail decides"


@pytest.mark.parametrize(
    ("stages", "told", "expected"),
    [
        ((0, 5), (SPOKEN,), SPOKEN),
        ((137, 5), (EARLY, SPOKEN), SPOKEN),
        ((141, 4), (EARLY,), EARLY),
        ((), (EARLY,), EARLY),
        ((1, 4), (EARLY,), None),
        ((0, 1), (), None),
    ],
)
def test_the_failure_that_decides(stages: tuple[int, ...], told: tuple[Failure, ...], expected: Failure | None) -> None:
    assert cause(stages, told) == expected
