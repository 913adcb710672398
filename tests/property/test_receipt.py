"""Receipts of any content: parse(serialise(x)) = x, and no two texts say the same."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qbtools.errors import Damaged
from qbtools.formats import receipt
from qbtools.formats.receipt import Receipt

IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9-]{0,40}", fullmatch=True)
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
RECEIPTS = st.builds(Receipt, IDS, DIGESTS, DIGESTS, DIGESTS, st.integers(0, 2**63 - 1))


@settings(max_examples=200, deadline=None)
@given(RECEIPTS)
def test_what_was_written_is_read(given: Receipt) -> None:
    assert receipt.parse(receipt.serialise(given)) == given


@settings(max_examples=20, deadline=None)
@given(RECEIPTS)
def test_every_cut_is_refused(given: Receipt) -> None:
    data = receipt.serialise(given)
    for size in range(len(data)):
        with pytest.raises(Damaged):
            receipt.parse(data[:size])
        with pytest.raises(Damaged):
            receipt.parse(data[size + 1 :])


@settings(max_examples=300, deadline=None)
@given(RECEIPTS, st.data())
def test_an_edit_is_refused_or_says_something_else(given: Receipt, draw: st.DataObject) -> None:
    data = receipt.serialise(given)
    at = draw.draw(st.integers(0, len(data)), "at")
    gone = draw.draw(st.integers(0, 3), "gone")
    edited = data[:at] + draw.draw(st.binary(max_size=3), "new") + data[at + gone :]
    with contextlib.suppress(Damaged):
        found = receipt.parse(edited)
        assert receipt.serialise(found) == edited
        assert (found == given) == (edited == data)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=6000))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(Damaged):
        receipt.parse(data)
