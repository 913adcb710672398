"""From the key of an archive to its passphrase, and the right error for each failure."""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import need

from qbtools.errors import Damaged, Failed, QbError, Refused, UsageError, WrongPassphrase
from qbtools.formats import container, header, keymembers, outertar
from qbtools.formats.containerhead import Parameters
from qbtools.formats.limits import Limits
from qbtools.formats.opener import Opening
from qbtools.formats.sealer import Settings, beginning
from qbtools.formats.ustar import END_OF_ARCHIVE
from qbtools.keys import unlocking, wrapping
from qbtools.keys.unlocking import Secret, Sources
from qbtools.keys.wrapping import Wraps
from qbtools.streams import Reader

ID = "20261124T060000-0123456789abcdef"
LIMITS = Limits(1 << 30)
MADE = b"m" * 52
TYPED = b"what somebody typed"

Members = list[tuple[str, bytes]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrapping, "LOG_N", 10)


def opening(keys: Members, passphrase: bytes = MADE, log_n: int = 10) -> Opening:
    names = {name for name, _blob in keys}
    signed = keymembers.SIGNATURE in names
    made = header.new_header(ID, "gzip", 1 << 20, key=bool(names - {keymembers.SIGNATURE}), signed=signed)
    settings = Settings(ID, 1 << 20, Parameters(log_n), 0)
    data = beginning(passphrase, made, settings, keys) + END_OF_ARCHIVE
    return Opening(Reader(io.BytesIO(data), "the archive"), LIMITS)


def never() -> bytes:
    pytest.fail("asked for a passphrase")


def typed(passphrase: bytes) -> Sources:
    return Sources([], None, lambda: passphrase)


def unlock(found: Opening, sources: Sources) -> Secret:
    return unlocking.unlock(found, sources, LIMITS, pytest.fail)


def wrapped(**how: object) -> Members:
    return wrapping.members(Wraps(**how), MADE, pytest.fail)  # type: ignore[arg-type]


def refuse(found: Opening, sources: Sources, kind: type[QbError], message: str) -> str | None:
    with pytest.raises(kind, match=f"^{re.escape(message)}") as caught:
        unlock(found, sources)
    assert type(caught.value) is kind
    return caught.value.hint


# --- made passphrases ---


def test_a_made_passphrase() -> None:
    made = {wrapping.new_passphrase() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(rb"[a-z2-7]{52}", one) for one in made)


def test_members_stand_in_their_order() -> None:
    need("age", "age-keygen")
    identity = subprocess.run(["age-keygen"], capture_output=True, check=True, text=True).stdout
    recipient = re.search("age1[a-z0-9]+", identity)
    assert recipient is not None
    found = wrapped(recipients=[recipient[0]], command="cat", typed=TYPED)
    assert [name for name, _blob in found] == [keymembers.AGE, keymembers.STRETCHED, keymembers.COMMAND]
    assert all(len(blob) <= keymembers.BOUNDS[name] for name, blob in found)


def test_the_stretched_one_is_a_container_of_scrypt(tmp_path: Path) -> None:
    need("scrypt")
    [(_name, blob)] = wrapped(typed=TYPED)
    (tmp_path / "blob").write_bytes(blob)
    done = subprocess.run(
        ["scrypt", "dec", "-P", tmp_path / "blob"],
        input=b"qb-key!" + TYPED + b"\n",
        capture_output=True,
        check=True,
    )
    assert done.stdout == MADE


def test_it_costs_more_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    [(_name, blob)] = wrapped(typed=TYPED)
    assert blob[7] == 18


# --- a typed passphrase ---


def test_a_passphrase_that_opens_the_header_is_accepted_with_any_wrap() -> None:
    for keys in ([], wrapped(typed=TYPED), wrapped(command="cat"), [(keymembers.STRETCHED, b"damaged")]):
        assert unlock(opening(keys), typed(MADE)) == Secret(MADE)


def test_one_that_opens_the_stretched_one() -> None:
    assert unlock(opening(wrapped(typed=TYPED)), typed(TYPED)) == Secret(MADE)
    # where the header is the dearer one, it is tried last
    assert unlock(opening(wrapped(typed=TYPED), log_n=15), typed(TYPED)) == Secret(MADE)
    assert unlock(opening([(keymembers.STRETCHED, b"damaged")], log_n=15), typed(MADE)) == Secret(MADE)


@pytest.mark.parametrize("log_n", [10, 15])
def test_one_that_opens_neither(log_n: int) -> None:
    hint = refuse(opening(wrapped(typed=TYPED), log_n=log_n), typed(b"x"), WrongPassphrase, "the passphrase is wrong")
    assert hint is not None and hint.startswith("check for blanks")


def test_a_wrong_passphrase_of_a_signed_archive() -> None:
    hint = refuse(opening([(keymembers.SIGNATURE, b"x")]), typed(b"x"), WrongPassphrase, "the passphrase is wrong")
    assert hint is not None and hint.startswith("check for blanks")


def test_without_a_stretched_one_the_hint_tells_what_opens() -> None:
    hint = refuse(opening(wrapped(command="cat")), typed(b"x"), WrongPassphrase, "the passphrase is wrong")
    assert hint == "--key-command opens this archive"
    hint = refuse(opening([(keymembers.AGE, b"x")]), typed(b"x"), WrongPassphrase, "the passphrase is wrong")
    assert hint == "-i IDENTITY opens this archive: its passphrase is in qb-key.age"


def test_without_key_members_the_passphrase_is_checked_when_opening() -> None:
    assert unlock(opening([]), typed(b"x")) == Secret(b"x")


def flipped(blob: bytes, at: int) -> bytes:
    return blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]


@pytest.mark.parametrize(
    ("at", "kind", "message"),
    [
        (0, Damaged, "qb-key.scrypt is not an scrypt container"),
        (50, Damaged, "qb-key.scrypt has a damaged header: its plain checksum is wrong"),
        (70, WrongPassphrase, "the passphrase is wrong"),
        (100, Damaged, "qb-key.scrypt: the content does not authenticate"),
        (179, Damaged, "qb-key.scrypt: the content does not authenticate"),
    ],
)
def test_a_damaged_stretched_one(at: int, kind: type[QbError], message: str) -> None:
    [(name, blob)] = wrapped(typed=TYPED)
    assert len(blob) == 180
    refuse(opening([(name, flipped(blob, at))]), typed(TYPED), kind, message)


def test_a_stretched_one_that_costs_too_much() -> None:
    sealed = container.seal_bytes(b"qb-key!" + TYPED, Parameters(10), MADE)
    start = sealed[:7] + bytes([40]) + sealed[8:48]
    hostile = start + hashlib.sha256(start).digest()[:16] + sealed[64:]
    refuse(opening([(keymembers.STRETCHED, hostile)]), typed(TYPED), Refused, "a key derivation of N=2^40")


def test_a_stretched_one_that_needs_too_much_memory() -> None:
    blob = container.seal_bytes(b"qb-key!" + TYPED, Parameters(14), MADE)
    small = Limits(8 << 20)
    with pytest.raises(Refused, match="16 MiB of memory are needed"):
        unlocking.unlock(opening([(keymembers.STRETCHED, blob)]), typed(TYPED), small, pytest.fail)


@pytest.mark.parametrize("data", [b"", b"\n", b"x" * 1025, b"a\nb", b"a\0b"])
def test_what_is_no_passphrase_inside(data: bytes) -> None:
    sealed = container.seal_bytes(b"qb-key!" + TYPED, Parameters(10), data)
    refuse(opening([(keymembers.STRETCHED, sealed)]), typed(TYPED), Damaged, "qb-key.scrypt holds no passphrase")
    text = f"head -c 0; printf '{data.decode()}'".replace("\0", "\\0")
    refuse(opening([(keymembers.COMMAND, b"x")]), Sources([], text, never), Damaged, "qb-key.command holds no")


def test_a_passphrase_of_another_archive_inside() -> None:
    sealed = container.seal_bytes(b"qb-key!" + TYPED, Parameters(10), b"of another archive")
    message = "the passphrase in qb-key.scrypt does not open the archive"
    refuse(opening([(keymembers.STRETCHED, sealed)]), typed(TYPED), Damaged, message)


def test_nobody_to_ask() -> None:
    def nobody() -> bytes:
        raise UsageError("no passphrase, and no terminal to ask for one", "use --passphrase-file")

    sources = Sources([], None, nobody)
    assert refuse(opening([]), sources, UsageError, "no passphrase") == "use --passphrase-file"
    hint = refuse(opening([(keymembers.AGE, b"x")]), sources, UsageError, "no passphrase")
    assert hint is not None and hint.startswith("-i IDENTITY opens")
    hint = refuse(opening(wrapped(typed=TYPED)), sources, UsageError, "no passphrase")
    assert hint == "use --passphrase-file"
    hint = refuse(opening([(keymembers.AGE, b"x"), *wrapped(typed=TYPED)]), sources, UsageError, "no passphrase")
    assert hint == "-i IDENTITY or a passphrase opens this archive"


# --- a command ---


def test_a_command_both_ways() -> None:
    """The second one reads the output of the first one."""
    keys = wrapped(command="tr a-z b-za")
    assert keys == [(keymembers.COMMAND, b"n" * 52 + b"\n")]
    assert unlock(opening(keys), Sources([], "tr b-za a-z", never)) == Secret(MADE, wrapped=True)
    message = "the passphrase in qb-key.command does not open the archive"
    refuse(opening(keys), Sources([], "cat", never), Damaged, message)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("exit 3", Failed, "the key command ended with status 3"),
        ("kill -KILL $$", Failed, "the key command "),
        ("printf half; kill -PIPE $$", Failed, "the key command was killed by SIGPIPE"),
        ("no-such-program-here", Failed, "the key command ended with status 127"),
        ("true", Failed, "the key command printed nothing"),
        ("cat /dev/zero", Refused, "the key command printed more than 65536 bytes"),
        ("cat; exit 1", Failed, "the key command ended with status 1"),
    ],
)
def test_a_command_that_fails(text: str, kind: type[QbError], message: str) -> None:
    with pytest.raises(kind, match=f"^{re.escape(message)}"):
        wrapped(command=text)
    found = opening([(keymembers.COMMAND, b"blob")])
    opened: Callable[[], object] = lambda: unlock(found, Sources([], text, never))  # noqa: E731
    with pytest.raises(Damaged if text in ("true", "cat /dev/zero") else kind):
        opened()


def test_the_largest_blob_of_a_command_passes_both_ways() -> None:
    keys = wrapped(command=f"cat; head -c {65536 - 53} /dev/zero")
    assert len(keys[0][1]) == 65536
    assert unlock(opening(keys), Sources([], "head -c 53; cat >/dev/null", never)) == Secret(MADE, wrapped=True)


# --- missing files ---


def test_a_member_that_is_not_there_never_falls_through_to_a_prompt() -> None:
    for keys in ([], wrapped(typed=TYPED), [(keymembers.COMMAND, b"x")]):
        refuse(opening(keys), Sources(["id"], None, never), UsageError, "-i: the archive has no qb-key.age")
    for keys in ([], [(keymembers.AGE, b"x")]):
        message = "--key-command: the archive has no qb-key.command"
        refuse(opening(keys), Sources([], "cat", never), UsageError, message)
    hint = refuse(opening(wrapped(typed=TYPED)), Sources(["id"], None, never), UsageError, "-i: ")
    assert hint == "a passphrase opens this archive"


def test_both_sources_and_one_member() -> None:
    keys = wrapped(command="cat")
    assert unlock(opening(keys), Sources(["/nonexistent"], "cat", never)) == Secret(MADE, wrapped=True)


def test_a_malformed_header_is_what_is_wrong() -> None:
    made = header.new_header(ID, "gzip", 1 << 20, key=True)
    data = beginning(MADE, made, Settings(ID, 1 << 20, Parameters(10), 0), [(keymembers.AGE, b"x")])
    members = data.replace(b"key=True", b"key=Trux", 1)
    found = Opening(Reader(io.BytesIO(members), "the archive"), LIMITS)
    refuse(found, Sources(["id"], None, never), Damaged, "backup-header: key has an unknown value: Trux")


def test_an_archive_of_version_3() -> None:
    text = "version=3\nencrypted=True\ncompressed=True\ncompression-filter=gzip\n"
    text += "hmac-algorithm=SHA512\ncrypto-algorithm=aes-256-cbc\n"
    out = io.BytesIO()
    for name, content in (("backup-header", text.encode()), ("backup-header.hmac", b"(stdin)= " + b"0" * 128)):
        out.write(outertar.header(name, len(content), 0) + content + outertar.padding(len(content)))
    found = Opening(Reader(io.BytesIO(out.getvalue()), "the archive"), LIMITS)
    refuse(found, Sources(["id"], None, never), UsageError, "-i: the archive has no qb-key.age")
