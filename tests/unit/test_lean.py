"""The replacements for Python's library in the stages behave like the library."""

from __future__ import annotations

import contextlib
import copy
import pickle
import signal
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qbtools import lean


class Lean(lean.NamedTuple):
    """Has a default."""

    first: int
    second: str = "two"


class Library(typing.NamedTuple):
    """The same."""

    first: int
    second: str = "two"


@pytest.mark.parametrize("values", [(1,), (1, "b")])
def test_a_tuple_with_names(values: tuple[Any, ...]) -> None:
    ours, theirs = Lean(*values), Library(*values)
    assert tuple(ours) == tuple(theirs) and ours == theirs and hash(ours) == hash(theirs)
    assert (ours.first, ours.second) == (theirs.first, theirs.second)
    assert ours._asdict() == theirs._asdict() and ours._fields == theirs._fields
    assert repr(ours) == repr(theirs).replace("Library", "Lean")
    changed = ours._replace(second="x")
    assert type(changed) is Lean and changed == theirs._replace(second="x")
    assert copy.deepcopy(ours) == ours and pickle.loads(pickle.dumps(ours)) == ours  # noqa: S301
    assert isinstance(ours, tuple) and [*ours] == [*theirs]


@pytest.mark.parametrize(("values", "named"), [((), {}), ((1, "b", 3), {}), ((1,), {"first": 2}), ((1,), {"third": 3})])
def test_not_a_tuple(values: tuple[Any, ...], named: dict[str, Any]) -> None:
    for kind in (Lean, Library):
        with pytest.raises(TypeError):
            kind(*values, **named)
    with pytest.raises((TypeError, ValueError)):
        Lean(1)._replace(third=3)  # type: ignore[call-arg]


def test_the_fields_cannot_be_set() -> None:
    with pytest.raises(AttributeError):
        Lean(1).first = 2  # type: ignore[misc]


@pytest.mark.parametrize("error", [None, OSError(), FileNotFoundError(), ValueError(), KeyboardInterrupt()])
def test_suppressed(error: BaseException | None) -> None:
    def outcome(suppress: Any) -> str:
        try:
            with suppress(OSError, KeyError):
                if error is not None:
                    raise error
                return "well"
        except BaseException as passed:
            assert passed is error
            return "passed on"
        return "suppressed"

    assert outcome(lean.suppress) == outcome(contextlib.suppress)


@given(st.one_of(st.binary(max_size=22), st.integers(-5, 1 << 66).map(lambda n: str(n).encode()), st.just(b"007")))
def test_a_number_is_decimal_without_leading_zero(text: bytes) -> None:
    import re

    expected = int(text) if re.fullmatch(rb"0|[1-9][0-9]{0,18}", text) else None
    assert lean.number(text) == expected


def test_a_pattern_is_a_regular_expression() -> None:
    pattern = lean.Pattern("(a+)(.)")
    match = pattern.fullmatch("aa\n")
    assert match is not None and match.groups() == ("aa", "\n")
    assert pattern.fullmatch("b") is None


def test_the_signals_are_those_of_the_system() -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGPIPE", "SIGALRM", "SIGIO", "SIG_IGN", "SIG_DFL"):
        assert getattr(lean.signal, name) == getattr(signal, name)
