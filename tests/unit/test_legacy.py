"""Version 3: HMAC texts, names, openssl's encryption in pieces of any size, and which errors can be found."""

from __future__ import annotations

import hashlib
import hmac
import io
import os
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from qbtools.errors import Damaged, QbError, WrongPassphrase
from qbtools.formats import header, legacy, outertar
from qbtools.formats.legacy import NOT_PROTECTED, LegacyArchive, parse_hmac, parse_member
from qbtools.formats.limits import Limits
from qbtools.formats.openarchive import Archive
from qbtools.formats.opener import Opening
from qbtools.formats.opensslenc import HEADROOM, SLACK, Decryptor
from qbtools.streams import Reader, Writer

SECRET = b"legacy"
LIMITS = Limits(16 << 20, chunk=4096)
Members = list[tuple[str, bytes]]

SALT = bytes.fromhex("0123456789abcdef")


def encrypted(data: bytes, secret: bytes = SECRET, salt: bytes = SALT, padding: bytes | None = None) -> bytes:
    """An independent implementation of openssl's encryption."""
    one = hashlib.md5(secret + salt).digest()
    two = hashlib.md5(one + secret + salt).digest()
    three = hashlib.md5(two + secret + salt).digest()
    count = 16 - len(data) % 16
    work = Cipher(AES(one + two), CBC(three)).encryptor()
    return b"Salted__" + salt + work.update(data + (bytes([count]) * count if padding is None else padding))


def decrypted(pieces: list[bytes], secret: bytes = SECRET) -> bytes:
    work = Decryptor(secret)
    out = b""
    for piece in pieces:
        buffer = memoryview(bytearray(bytes(HEADROOM) + piece + bytes(SLACK)))
        out += bytes(work.update(buffer, HEADROOM + len(piece)))
    return out + work.finish()


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 31, 32, 33, 1000, (1 << 18) - 1, 1 << 18, (1 << 18) + 40])
def test_decryption(size: int) -> None:
    data = os.urandom(size)
    stored = encrypted(data)
    for cuts in ([], [16], [8], [17, 33], [len(stored) - 1], [len(stored) - 16], [len(stored)]):
        edges = [0, *(cut for cut in cuts if cut <= len(stored)), len(stored)]
        assert decrypted([stored[a:b] for a, b in zip(edges, edges[1:], strict=False)]) == data


@pytest.mark.parametrize("step", range(1, 40))
def test_pieces_of_any_size(step: int) -> None:
    data = os.urandom(333)
    stored = encrypted(data)
    assert decrypted([stored[at : at + step] for at in range(0, len(stored), step)]) == data


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (b"", "middle of a block"),
        (b"Salted__" + SALT, "middle of a block"),
        (encrypted(b"x" * 40)[:-1], "middle of a block"),
        (encrypted(b"x" * 40)[:-15], "middle of a block"),
        (encrypted(b"x" * 40) + b"x", "middle of a block"),
        (encrypted(b"x" * 40)[:-16], "padded block"),
        (encrypted(b"x" * 16, padding=bytes(16)), "padded block"),
        (encrypted(b"x" * 15, padding=b"\x11"), "padded block"),
        (encrypted(b"x" * 14, padding=b"\x01\x02"), "padded block"),
        (b"salted__" + encrypted(b"x")[8:], "begin"),
        (bytes(range(32)), "begin"),
    ],
)
def test_what_openssl_did_not_write(stored: bytes, message: str) -> None:
    with pytest.raises(Damaged, match=message):
        decrypted([stored])


def digest(data: bytes, algorithm: str = "sha512", secret: bytes = SECRET) -> str:
    return hmac.new(secret, data, algorithm).hexdigest()


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha384", "sha512"])
def test_the_texts_of_openssl(algorithm: str) -> None:
    value = digest(b"x", algorithm)
    number = algorithm[3:]
    labels = ["", algorithm.upper(), f"HMAC-{algorithm.upper()}"]
    labels += [f"SHA2-{number}", f"HMAC-SHA2-{number}"] if algorithm != "sha1" else []
    for label in labels:
        for end in ("", "\n"):
            assert parse_hmac(f"{label}(stdin)= {value}{end}".encode(), algorithm, "x") == bytes.fromhex(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "(stdin)= ",
        "(stdin)= zz",
        "(stdin)=VALUE",
        "VALUE",
        "(stdin)= VALUE\n\n",
        "(stdin)= VALUE ",
        "(stdin)= VALUE00",
        "(stdin)= -VALUE",
        "(stdin)= (stdin)= VALUE",
        "SHA256(stdin)= VALUE",
        "MD5(stdin)= VALUE",
        "HMAC-(stdin)= VALUE",
        "SHA512 (stdin)= VALUE",
        "SHA512(file)= VALUE",
        "\u0661(stdin)= VALUE",
    ],
)
def test_other_texts(text: str) -> None:
    with pytest.raises(Damaged, match="a.hmac is not what openssl dgst prints for sha512"):
        parse_hmac(text.replace("VALUE", digest(b"x")).encode(), "sha512", "a.hmac")


def test_a_digest_of_another_size() -> None:
    with pytest.raises(Damaged):
        parse_hmac(f"(stdin)= {digest(b'x', 'sha256')}".encode(), "sha512", "a")


@pytest.mark.parametrize(
    ("member", "found"),
    [
        ("qubes.xml.000", ("qubes.xml", 0)),
        ("vm7/..000", ("vm7/.", 0)),
        ("vm-templates/a-b_c/..1234", ("vm-templates/a-b_c/.", 1234)),
        ("appvms/work/private.img.012", ("appvms/work/private.img", 12)),
        ("a.000.000", ("a.000", 0)),
    ],
)
def test_names(member: str, found: tuple[str, int]) -> None:
    assert parse_member(member) == found


@pytest.mark.parametrize(
    "member",
    [
        "backup-header",
        "backup-header.hmac",
        "vm1/a.000.hmac",
        "vm1/a.000.enc",
        "vm1/a",
        "vm1/a.00",
        "vm1/a.0000",
        "..000",
        "vm1/../a.000",
        "vm1/...000",
        "/a.000",
        "./a.000",
        "vm1//a.000",
        "-a.000",
        "vm1/./a.000",
        "qb-manifest.000",
    ],
)
def test_other_names(member: str) -> None:
    with pytest.raises(Damaged):
        parse_member(member)


# -- complete archives ------------------------------------------------------------------------------------------------


def text(encryption: bool = True, algorithm: str = "SHA512", version: str = "3") -> bytes:
    return (
        f"version={version}\nhmac-algorithm={algorithm}\ncrypto-algorithm=aes-256-cbc\n"
        f"encrypted={encryption}\ncompressed=True\ncompression-filter=gzip\n"
    ).encode()


def pair(name: str, data: bytes, algorithm: str = "sha512", secret: bytes = SECRET) -> Members:
    return [(name, data), (f"{name}.hmac", f"(stdin)= {digest(data, algorithm, secret)}\n".encode())]


FILES = {
    "qubes.xml": b"<QubesVmCollection/>",
    "vm1/private.img": bytes(32 + at * 7 % 211 for at in range(2500)),  # no byte that could be padding
    "vm1/root.img": b"",
    "vm2/.": bytes(32 + at * 5 % 223 for at in range(960)),  # with 16 of padding and 16 of salt: chunks that are full
}


def members(files: dict[str, bytes] = FILES, encryption: bool = True, cut: int = 496, shift: int = 0) -> Members:
    """shift: chunks that do not end with a block."""
    found = pair("backup-header", text(encryption))
    for name, data in files.items():
        stored = encrypted(data, salt=os.urandom(8)) if encryption else data
        size = len(stored) if name == "qubes.xml" else cut + shift
        for number, at in enumerate(range(0, max(len(stored), 1), max(size, 1))):
            found += pair(f"{name}.{number:03d}", stored[at : at + size])
    return found


def joined(pieces: Members) -> bytes:
    out = io.BytesIO()
    writer = outertar.MemberWriter(Writer(out), 0)
    for name, data in pieces:
        writer.add(name, data)
    writer.end_of_archive()
    return out.getvalue()


def opened(data: bytes, warn: Callable[[str], None] = lambda _text: None, secret: bytes = SECRET) -> Archive:
    return Opening(Reader(io.BytesIO(data), "the archive"), LIMITS).archive(secret, lambda _each: 2, warn)


def contents(
    data: bytes, wanted: Callable[[str], bool] = lambda _name: True
) -> tuple[dict[str, bytes], QbError | None]:
    """The data of each file, complete or not, and the error at the end."""
    found: dict[str, bytes] = {}
    try:
        for event in opened(data).events(wanted):
            if event.data is not None:
                found[event.name] = found.get(event.name, b"") + bytes(event.data)
    except QbError as error:
        return found, error
    return found, None


@pytest.mark.parametrize("shift", [0, 1, 5, 15])
@pytest.mark.parametrize("encryption", [True, False])
def test_everything_is_returned(encryption: bool, shift: int) -> None:
    assert contents(joined(members(encryption=encryption, shift=shift))) == (FILES, None)


def test_events_and_records() -> None:
    warnings: list[str] = []
    archive = opened(joined(members()), warnings.append)
    assert isinstance(archive, LegacyArchive)
    assert archive.header == Opening(Reader(io.BytesIO(joined(members()))), LIMITS).header(SECRET)
    assert header.parse(header.serialise(archive.header)) == archive.header
    events = [(event.name, event.number, event.size) for event in archive.events(lambda name: name == "vm2/.")]
    assert events[0] == ("qubes.xml", 0, 48)
    assert [event for event in events if event[0] == "vm2/."] == [
        ("vm2/.", -3, 0),
        ("vm2/.", 0, 496),
        ("vm2/.", 1, 496),
        ("vm2/.", 2, 0),  # what the last block held
        ("vm2/.", -1, 0),
    ]
    assert [(file.name, file.chunks, file.size) for file in archive.records] == [
        ("qubes.xml", 1, 48),
        ("vm1/private.img", 6, 2528),
        ("vm1/root.img", 1, 32),
        ("vm2/.", 2, 992),
    ]
    assert warnings == [NOT_PROTECTED]


def test_unwanted_files_are_not_decrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(legacy, "Decryptor", pytest.fail)
    assert contents(joined(members()), lambda _name: False) == ({}, None)


def test_a_file_that_is_no_longer_wanted() -> None:
    """Its reader has ended: the padding is not checked."""
    asked: list[str] = []

    def wanted(name: str) -> bool:
        asked.append(name)
        return asked.count(name) < 3

    found, error = contents(joined(members()), wanted)
    assert error is None
    assert FILES["vm1/private.img"].startswith(found["vm1/private.img"])
    assert found["vm2/."] == FILES["vm2/."]


def test_a_wrong_passphrase() -> None:
    with pytest.raises(WrongPassphrase) as caught:
        opened(joined(members()), secret=b"other")
    assert "is damaged" in (caught.value.hint or "")


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha384"])
def test_algorithms(algorithm: str) -> None:
    pieces = pair("backup-header", text(False, algorithm), algorithm) + pair("qubes.xml.000", b"x", algorithm)
    assert contents(joined(pieces)) == ({"qubes.xml": b"x"}, None)


def test_the_algorithm_of_the_header_counts() -> None:
    """An attacker cannot choose: without the passphrase there is no HMAC of any algorithm."""
    pieces = members()
    weaker = [("backup-header", text(algorithm="SHA1")), pieces[1]]
    assert isinstance(contents(joined(weaker + pieces[2:]))[1], Damaged)
    weaker = pair("backup-header", text(algorithm="SHA1"), "sha1", b"a guess")
    with pytest.raises(WrongPassphrase):
        opened(joined(weaker + pieces[2:]))


@pytest.mark.parametrize("algorithm", ["md5", "scrypt", "none", "sha224"])
def test_other_algorithms(algorithm: str) -> None:
    with pytest.raises(Damaged, match="hmac-algorithm has an unknown value"):
        opened(joined([("backup-header", text(algorithm=algorithm)), *members()[1:]]))


def test_version_2() -> None:
    with pytest.raises(Damaged, match="version 2 or older, which is not read"):
        opened(joined(members()[2:]))
    with pytest.raises(Damaged, match="version 2 or older, which is not read"):
        opened(joined([("backup-header", text()[10:]), *members()[1:]]))


def test_version_4_needs_a_sealed_header() -> None:
    four = text(version="4").replace(b"SHA512", b"scrypt") + b"backup-id=1\n"
    with pytest.raises(Damaged, match="backup-header.hmac is not an scrypt container"):
        opened(joined(pair("backup-header", four) + members()[2:]))


def change(name: str, how: Callable[[bytes], bytes], encryption: bool = True) -> bytes:
    found = members(encryption=encryption)
    assert name in dict(found)
    return joined([(member, how(data) if member == name else data) for member, data in found])


def flip(data: bytes) -> bytes:
    return data[:20] + bytes([data[20] ^ 1]) + data[21:]


@pytest.mark.parametrize("encryption", [True, False])
@pytest.mark.parametrize("name", ["vm1/private.img.001", "vm1/private.img.001.hmac"])
def test_a_flipped_bit(name: str, encryption: bool) -> None:
    """Neither this chunk nor any later one is returned."""
    found, error = contents(change(name, flip, encryption))
    assert isinstance(error, Damaged)
    assert "vm1/private.img.001" in error.message
    assert FILES["vm1/private.img"].startswith(found["vm1/private.img"])
    assert len(found["vm1/private.img"]) <= 496
    assert set(found) == {"qubes.xml", "vm1/private.img"}


def test_a_bit_of_the_header() -> None:
    for name in ("backup-header", "backup-header.hmac"):
        assert type(contents_error(change(name, lambda data: data[:-2] + b"0\n"))) in (Damaged, WrongPassphrase)
    assert isinstance(contents_error(change("backup-header", lambda data: data + b"new=1\n")), WrongPassphrase)


def contents_error(data: bytes) -> QbError | None:
    try:
        return contents(data)[1]
    except QbError as error:
        return error


def without(*names: str, encryption: bool = True) -> bytes:
    return joined([member for member in members(encryption=encryption) if member[0] not in names])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (without("vm1/private.img.001.hmac"), "vm1/private.img.001.hmac is missing behind its chunk"),
        (without("vm2/..001.hmac"), "vm2/..001.hmac is missing behind its chunk"),
        (without("vm1/private.img.001"), "not the name of a chunk"),
        (without("vm1/private.img.001", "vm1/private.img.001.hmac"), "comes where vm1/private.img.001 is due"),
        (without("vm1/private.img.000", "vm1/private.img.000.hmac"), "comes where vm1/private.img.000 is due"),
        (without("qubes.xml.000", "qubes.xml.000.hmac"), "qubes.xml.000 is due"),
        (joined(members()[:2]), "qubes.xml is missing"),
        (joined(members() + pair("vm1/a.000", b"")), "comes back to the directory vm1"),
        (joined(members() + pair("vm2/..000", b"")), "comes where vm2/..002 is due"),
        (joined(members() + pair("vm2/a.000.enc", b"")), "not the name of a chunk"),
        (joined(members() + pair("vm3/a.000", bytes(4097))), "vm3/a.000 is too long"),
        (joined([*members(), ("vm3/a.000", b""), ("vm3/a.000.hmac", b"x" * 4097)]), "is too long"),
        (joined(members() + members()), "a second backup-header"),
    ],
)
def test_order_and_what_is_missing(data: bytes, message: str) -> None:
    for wanted in (True, False):
        error = contents(data, lambda _name, wanted=wanted: wanted)[1]
        assert isinstance(error, Damaged)
        assert message in error.message


def test_the_end_of_an_encrypted_file_is_missing() -> None:
    """No MAC shows it, but the padding does (unless the data happens to look like padding)."""
    found, error = contents(without("vm1/private.img.005", "vm1/private.img.005.hmac"))
    assert isinstance(error, Damaged)
    assert error.message.startswith("vm1/private.img is damaged or incomplete")
    assert FILES["vm1/private.img"].startswith(found["vm1/private.img"])
    assert "vm2/." not in found


def test_what_cannot_be_noticed() -> None:
    """Exchanged or missing files, and the missing end of an unencrypted file: the warning says so."""
    gone = [member for member in members() if not member[0].startswith("vm2")]
    assert contents(joined(gone)) == ({name: data for name, data in FILES.items() if name != "vm2/."}, None)
    short = without("vm1/private.img.005", "vm1/private.img.005.hmac", encryption=False)
    assert contents(short)[1] is None
    turned = {"vm1/private.img": "vm1/other.img", "vm1/root.img": "vm1/private.img"}
    renamed = []
    for name, data in members():
        for old, new in turned.items():
            if name.startswith(old):
                name = new + name[len(old) :]
                break
        renamed.append((name, data))
    found, error = contents(joined(renamed))
    assert error is None
    assert found["vm1/private.img"] == b""
    assert found["vm1/other.img"] == FILES["vm1/private.img"]


def test_truncated_anywhere() -> None:
    data = joined(members())
    for end in range(0, len(data) - 1024, 512):
        for cut in {end, end + 100}:
            error = contents_error(data[:cut])
            # Behind a pair the file may be whole.
            assert error is None or isinstance(error, Damaged), cut


def test_truncated_at_a_member() -> None:
    """Noticed, unless it is the end of a complete file."""
    pieces = members()
    for count in range(2, len(pieces)):
        last = pieces[count - 1][0]
        whole = ("qubes.xml.000.hmac", "vm1/private.img.005.hmac", "vm1/root.img.000.hmac", "vm2/..001.hmac")
        assert (contents_error(joined(pieces[:count])) is None) == (last in whole), last
