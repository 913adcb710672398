"""Key members are replaced in an archive: all other bytes stay the same."""

from __future__ import annotations

import io
import random

import pytest
from vectors import archivebytes as made
from vectors.archivebytes import Piece, Pieces
from vectors.tarbytes import END

from qbtools.errors import Damaged, QbError, Refused
from qbtools.formats import outertar, replacing
from qbtools.formats.limits import Limits
from qbtools.formats.opener import Opening
from qbtools.formats.passing import READ_AHEAD, Passing
from qbtools.streams import Reader, Writer

AGE, STRETCHED, COMMAND, SIGNATURE = "qb-key.age", "qb-key.scrypt", "qb-key.command", "qb-signature"
FILES = made.file("qubes.xml", b"x" * 20) + made.file("vm1/root.img", bytes(600)) + made.file("vm2/a.img", b"")
REST = [*FILES, made.manifest(FILES)]
PAIR = made.header_pair(made.header(more="key=True\n"))
SIGNED_PAIR = made.header_pair(made.header(more="key=True\nsigned=ssh\n"))
SIGNED = (SIGNATURE, b"signature" * 30)
OLD = [(AGE, b"old" * 300), (COMMAND, b"by a command")]
NEW = [(AGE, b"new"), (STRETCHED, b"s" * 180), (COMMAND, b"c" * 512)]


def replaced(data: bytes, keys: Pieces) -> tuple[bytes, QbError | None]:
    """The output, and how it ends."""
    kept, out = replacing.Kept(), io.BytesIO()
    source = Passing(Reader(io.BytesIO(data), "the archive", READ_AHEAD), Writer(kept))
    opening = Opening(source, Limits(1 << 30))
    try:
        beginning = replacing.with_keys(kept.data(), keys)
        source.direct(Writer(out))
        out.write(beginning)
        opening.check_rest(pytest.fail)
    except QbError as error:
        return out.getvalue(), error
    return out.getvalue(), None


@pytest.mark.parametrize("new", [NEW, NEW[:1], NEW[1:2], OLD])
@pytest.mark.parametrize("old", [OLD, OLD[1:], NEW])
@pytest.mark.parametrize("signature", [True, False])
def test_nothing_else_changes(old: Pieces, new: Pieces, signature: bool) -> None:
    pair, signed = (SIGNED_PAIR, [SIGNED]) if signature else (PAIR, [])
    data = made.archive([*pair, *old, *signed, *REST])
    out, error = replaced(data, new)
    assert (out, error) == (made.archive([*pair, *new, *signed, *REST]), None)
    assert replaced(out, old) == (data, None)


def padded(pieces: Pieces) -> bytes:
    """Each member as a separate archive, as Qubes writes them."""
    return b"".join(block + END + bytes(-len(block + END) % 10240) for block in made.blocks(pieces))


def test_an_archive_that_is_padded() -> None:
    """The members that stay keep the zeros before them."""
    out, error = replaced(padded([*PAIR, *OLD, *REST]), NEW)
    tail = padded(OLD[-1:]).removeprefix(made.blocks(OLD[-1:])[0])
    expected = padded(PAIR[:1]) + b"".join(made.blocks([*PAIR[1:], *NEW])) + tail + padded(REST)
    assert (out, error) == (expected, None)


def pax(piece: Piece) -> bytes:
    """A member with a pax header in front, as GNU tar may write it."""
    name, data = piece
    record = f"{len(name) + 9} path={name}\n".encode()
    head = bytearray(outertar.header("x", len(record), 0))
    head[156:157] = b"x"
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + record + outertar.padding(len(record)) + made.blocks([(name, data)])[0]


def test_members_with_pax_headers() -> None:
    pieces = [*SIGNED_PAIR, *OLD, SIGNED]
    rest = pax(REST[0]) + made.archive(REST[1:])
    out, error = replaced(b"".join(map(pax, pieces)) + rest, NEW)
    stay = [pax(piece) for piece in (*SIGNED_PAIR, SIGNED)]
    assert error is None
    assert out == stay[0] + stay[1] + b"".join(made.blocks(NEW)) + stay[2] + rest


def test_the_time_is_that_of_the_backup() -> None:
    def member(name: str, data: bytes) -> bytes:
        return outertar.header(name, len(data), 1700000000) + data + outertar.padding(len(data))

    out, error = replaced(b"".join(member(*piece) for piece in [*PAIR, *OLD, *REST]) + END, NEW)
    assert (out, error) == (b"".join(member(*piece) for piece in [*PAIR, *NEW, *REST]) + END, None)


def test_a_time_that_is_malformed() -> None:
    head = bytearray(made.archive([*PAIR, *OLD, *REST]))
    head[136:148] = b"x" * 12
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head[:512])
    out, error = replaced(bytes(head), NEW)
    assert error is None and out.startswith(head[: len(b"".join(made.blocks(PAIR)))])


def test_cut_anywhere() -> None:
    """The output is not a complete archive, either."""
    data = made.archive([*PAIR, *OLD, *REST])
    whole = made.archive([*PAIR, *NEW, *REST])
    begun = len(b"".join(made.blocks([*PAIR, *OLD])))
    last = len(data) - len(END) - len(made.blocks(REST[-1:])[0])
    for size in (*range(begun, last + 512, 97), begun + 1, last, last + 511):
        out, error = replaced(data[:size], NEW)
        assert isinstance(error, Damaged) and whole.startswith(out) and len(out) < len(whole) - len(END)


def test_damaged_anywhere() -> None:
    data = made.archive([*PAIR, *OLD, *REST])
    begun = len(b"".join(made.blocks([*PAIR, *OLD])))
    dice = random.Random(5)
    for _ in range(300):
        at = dice.randrange(begun, len(data))
        changed = data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]
        out, error = replaced(changed, NEW)
        expected = b"".join(made.blocks([*PAIR, *NEW])) + changed[begun:]
        assert out == expected if error is None else expected.startswith(out)


def test_zeros_without_end_take_no_memory() -> None:
    """Any number of zero blocks may precede the first chunk, and everything is kept until the keys are available."""
    for pieces in ([*PAIR, *OLD], PAIR):
        many = b"".join(made.blocks(pieces)) + bytes(replacing.MAX_BEGINNING) + made.archive(REST)
        with pytest.raises(Refused, match="more than 1048576 bytes before its first chunk"):
            out, error = replaced(many, NEW)
            assert out == b"" and error is not None
            raise error


def test_maximum_lengths() -> None:
    begun = b"".join(made.blocks([*PAIR, *OLD]))
    zeros = bytes(replacing.MAX_BEGINNING - len(begun) - 512)
    out, error = replaced(begun + zeros + made.archive(REST), NEW)
    assert (out, error) == (b"".join(made.blocks([*PAIR, *NEW])) + zeros + made.archive(REST), None)
