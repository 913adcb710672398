"""Receipts of any content: parse(serialise(x)) = x, and no two texts say the same."""

from __future__ import annotations

import contextlib
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors import archivebytes as made

from qbtools.errors import Damaged, QbError
from qbtools.formats import receipt, structure
from qbtools.formats.outertar import MemberReader
from qbtools.formats.receipt import ContentDigest, Receipt
from qbtools.streams import Reader

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


# What a receipt notices of an archive, without a key.

FILES = made.file("qubes.xml", b"x" * 20) + made.file("vm1/root.img", bytes(600)) + made.file("vm2/a.img", b"")
WHOLE = made.archive([*made.header_pair(made.header()), *FILES, made.manifest(FILES)])


def contents(data: bytes) -> list[tuple[str, bytes]]:
    reader = MemberReader(Reader(io.BytesIO(data)), lambda _name: 1 << 20)
    found = []
    while (member := reader.next()) is not None:
        found.append((member.untrusted_name, reader.read_all()))
    return found


def receipt_of(data: bytes) -> Receipt:
    digest = ContentDigest()
    for name, content in contents(data):
        digest.begin(name, len(content))
        digest.update(content)
    return digest.receipt(made.ID)


@settings(max_examples=500, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 600), st.binary(max_size=600))
def test_whatever_is_changed_is_noticed_or_no_content(at: int, gone: int, new: bytes) -> None:
    changed = WHOLE[:at] + new + WHOLE[at + gone :]
    with contextlib.suppress(QbError):
        structure.check(Reader(io.BytesIO(changed)), 1 << 20, pytest.fail, receipt_of(WHOLE))
        assert contents(changed) == contents(WHOLE)


@settings(max_examples=500, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 7))
def test_every_bit(at: int, bit: int) -> None:
    changed = WHOLE[:at] + bytes([WHOLE[at] ^ 1 << bit]) + WHOLE[at + 1 :]
    with contextlib.suppress(QbError):
        structure.check(Reader(io.BytesIO(changed)), 1 << 20, pytest.fail, receipt_of(WHOLE))
        assert contents(changed) == contents(WHOLE)
