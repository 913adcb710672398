"""Each way to fail has its status, and the table of the contract is all there is."""

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
    classes = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert {name: kind.status for name, kind in classes.items()} == STATUSES


@pytest.mark.parametrize("name", STATUSES)
def test_an_error_holds_its_message_and_its_hint(name: str) -> None:
    error = getattr(errors, name)("it is so", "do this")
    assert (error.message, error.hint, str(error)) == ("it is so", "do this", "it is so")
    assert getattr(errors, name)("it is so").hint is None


def test_truncated_is_damage() -> None:
    assert issubclass(errors.Truncated, errors.Damaged)
