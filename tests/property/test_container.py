"""Containers of any content: open(seal(x)) = x, and whatever is changed is noticed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors import archivebytes as made

from qbtools.errors import Damaged
from qbtools.formats.container import SLACK, Key, Parameters, open_bytes, parse_fixed, seal_bytes

PARAMETERS = st.builds(Parameters, st.integers(10, 12), st.integers(1, 4), st.integers(1, 3))
SECRETS = st.binary(min_size=1, max_size=100)
DATA = st.binary(max_size=1000)
SECRET = b"correct horse"
SEALED = {size: made.container(SECRET, made.content("data", size)) for size in (0, 1, 15, 16, 17, 100)}


@settings(max_examples=50, deadline=None)
@given(SECRETS, PARAMETERS, DATA)
def test_open_what_was_sealed(secret: bytes, parameters: Parameters, data: bytes) -> None:
    sealed = seal_bytes(secret, parameters, data)
    assert parse_fixed(sealed) == (parameters, sealed[16:48])
    assert open_bytes(secret, sealed) == data


@settings(max_examples=50, deadline=None)
@given(SECRETS, PARAMETERS, DATA)
def test_the_same_as_another_implementation(secret: bytes, parameters: Parameters, data: bytes) -> None:
    theirs = made.container(secret, data, parameters.log_n, parameters.r, parameters.p)
    key = Key(secret, parameters, theirs[16:48])
    buffer = memoryview(bytearray(data) + bytes(SLACK))
    mac = key.seal(buffer, len(data))
    assert key.header + bytes(buffer[: len(data)]) + mac == theirs


@settings(max_examples=30, deadline=None)
@given(SECRETS, SECRETS, DATA)
def test_another_secret_opens_nothing(secret: bytes, other: bytes, data: bytes) -> None:
    # HMAC pads its key with zeros, so those behind a secret do not tell it from another; none can be in a passphrase.
    if secret.rstrip(b"\0") != other.rstrip(b"\0"):
        with pytest.raises(Damaged):
            open_bytes(other, seal_bytes(secret, Parameters(10, 1, 1), data))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(SEALED)), st.data())
def test_whatever_is_changed_is_noticed(size: int, draw: st.DataObject) -> None:
    sealed = SEALED[size]
    at = draw.draw(st.integers(0, len(sealed)), "at")
    end = draw.draw(st.integers(at, len(sealed)), "end")
    to = draw.draw(st.integers(0, len(sealed)), "to")
    changed = draw.draw(
        st.sampled_from(
            [
                sealed[:at] + sealed[end:],
                sealed[:end] + sealed[at:],
                sealed[:at] + draw.draw(st.binary(min_size=1, max_size=40), "new") + sealed[at:],
                sealed[:at] + bytes(end - at) + sealed[end:],
                sealed[:at] + sealed[at:end][::-1] + sealed[end:],
                sealed[:to] + sealed[at:end] + sealed[to:],
                sealed[:at] + bytes(byte ^ 0x55 for byte in sealed[at:end]) + sealed[end:],
                sealed + SEALED[16],
            ]
        ),
        "changed",
    )
    if changed != sealed:
        with pytest.raises(Damaged):
            open_bytes(SECRET, changed)


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(Damaged):
        open_bytes(SECRET, data)


@given(st.binary(min_size=58, max_size=300))
def test_any_bytes_behind_the_magic(data: bytes) -> None:
    with pytest.raises(Damaged):
        open_bytes(SECRET, b"scrypt" + data)
