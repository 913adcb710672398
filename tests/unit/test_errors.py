"""Each kind of failure has its status, and the table of the contract lists all of them."""

from __future__ import annotations

import pytest

from qbtools import errors

STATUSES = {
    "QbError": 1,
    "Failed": 1,
    "UsageError": 2,
    "WrongPassphrase": 3,
    "Damaged": 4,
    "Truncated": 4,
    "Refused": 5,
}


def test_the_statuses_are_those_of_the_contract() -> None:
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.QbError)]
    made = (errors.Told, errors.OtherPython)  # with more words than a message and a hint
    assert {kind.__name__: kind.status for kind in classes if kind not in made} == STATUSES
    assert errors.OtherPython("/usr/bin/python3", "it is missing", "install it").status == 1


def test_a_reported_error_has_the_status_of_its_reporter() -> None:
    for status in errors.OUR_STATUSES:
        assert (errors.Told(status).status, errors.Told(status).message) == (status, "")
    assert set(errors.OUR_STATUSES) == set(STATUSES.values()) - {errors.UsageError.status}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(1, "Failed"), (2, "UsageError"), (3, "WrongPassphrase"), (4, "Damaged"), (5, "Refused"), (137, "Failed")],
)
def test_the_status_of_another_program_tells_the_kind_of_its_error(status: int, kind: str) -> None:
    assert errors.of_status(status).__name__ == kind


@pytest.mark.parametrize("name", STATUSES)
def test_an_error_holds_its_message_and_its_hint(name: str) -> None:
    error = getattr(errors, name)("it is so", "do this")
    assert (error.message, error.hint, str(error)) == ("it is so", "do this", "it is so")
    assert getattr(errors, name)("it is so").hint is None


def test_truncated_is_damage() -> None:
    assert issubclass(errors.Truncated, errors.Damaged)
