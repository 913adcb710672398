"""The receipt of an archive: its text, and how it is made."""

from __future__ import annotations

import hashlib
import io

import pytest
from vectors import archivebytes as made

from qbtools.errors import Damaged, Refused
from qbtools.formats import header, outertar, receipt, sealer
from qbtools.formats.beginning import header_digest
from qbtools.formats.container import Parameters
from qbtools.formats.limits import Limits
from qbtools.formats.opener import Opening
from qbtools.formats.receipt import ContentDigest, Receipt
from qbtools.formats.sealer import Sealer, Settings, Source
from qbtools.streams import Reader, Writer

ID = "20261124T060000-0123456789abcdef"
A, B, C = "a" * 64, "b" * 64, "0123456789abcdef" * 4
RECEIPT = Receipt(ID, A, B, C, 4711)
TEXT = f"""\
qb-receipt 1
backup-id {ID}
header {A}
manifest {B}
content {C}
bytes 4711
end
"""


def test_what_is_written() -> None:
    assert receipt.serialise(RECEIPT) == TEXT.encode()


def test_what_is_read() -> None:
    assert receipt.parse(TEXT.encode()) == RECEIPT
    assert receipt.parse(TEXT.replace("4711", "0").encode()) == RECEIPT._replace(size=0)
    assert receipt.parse(TEXT.replace("4711", str(2**63 - 1)).encode()).size == 2**63 - 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("qb-receipt 1", "qb-receipt 2"),
        ("qb-receipt 1", "qb-manifest 1"),
        ("qb-receipt 1\n", ""),
        ("qb-receipt 1\n", "qb-receipt 1\n\n"),
        ("qb-receipt 1\n", "\ufeffqb-receipt 1\n"),
        ("\n", "\r\n"),
        (f"backup-id {ID}", f"backup-id  {ID}"),
        (f"backup-id {ID}", f"backup-id {ID} "),
        (f"backup-id {ID}", "backup-id -x"),
        (f"backup-id {ID}", "backup-id "),
        (f"backup-id {ID}", "backup-id \u00e9"),
        (f"backup-id {ID}\n", ""),
        (f"backup-id {ID}\n", f"backup-id {ID}\n" * 2),
        (f"header {A}\nmanifest {B}\n", f"manifest {B}\nheader {A}\n"),
        (f"header {A}\n", f"header {A}\n" * 2),
        (f"header {A}", f"header {A.upper()}"),
        (f"header {A}", f"header {A[1:]}"),
        (f"header {A}", f"header {A}a"),
        (f"content {C}\n", ""),
        (f"content {C}", f"content {'g' * 64}"),
        ("bytes 4711", "bytes 04711"),
        ("bytes 4711", "bytes +4711"),
        ("bytes 4711", "bytes -4711"),
        ("bytes 4711", "bytes 4_711"),
        ("bytes 4711", "bytes \u0664"),
        ("bytes 4711", "bytes"),
        ("bytes 4711", f"bytes {2**63}"),
        ("bytes 4711", f"bytes {'9' * 3000}"),
        ("bytes 4711\n", "bytes 4711\nmore 1\n"),
        ("end\n", ""),
        ("end\n", "end"),
        ("end\n", "end\n\n"),
        ("end\n", "end\nend\n"),
        ("end\n", "end 1\n"),
        ("end\n", "end\nx"),
        (TEXT, ""),
        (TEXT, TEXT * 2),
        (TEXT, "\0" * 100),
    ],
)
def test_everything_not_exactly_in_the_format_is_refused(old: str, new: str) -> None:
    assert old in TEXT
    with pytest.raises(Damaged, match="the copy in the safe"):
        receipt.parse(TEXT.replace(old, new).encode(), "the copy in the safe")


def test_the_longest_backup_id_fits() -> None:
    name = "x" * (header.MAX_SIZE - 100)
    long = RECEIPT._replace(backup_id=name)
    assert receipt.parse(receipt.serialise(long)) == long
    with pytest.raises(Damaged, match="more than"):
        receipt.parse(receipt.serialise(RECEIPT._replace(backup_id="x" * receipt.MAX_SIZE)))


def test_an_archive_is_compared_with_it() -> None:
    RECEIPT.check(RECEIPT)
    for change in ({"manifest": A}, {"content": A}, {"size": 4710}):
        with pytest.raises(Damaged, match="receipt"):
            RECEIPT.check(RECEIPT._replace(**change))  # type: ignore[arg-type]
    with pytest.raises(Damaged, match="receipt"):
        RECEIPT.check_manifest(A)


def test_a_header_is_compared_with_it() -> None:
    plain, sealed = (content for _, content in made.header_pair(made.header()))
    true = RECEIPT._replace(header=receipt.header_digest(plain, sealed))
    true.check_header(plain, sealed)
    other = made.header(made.OTHER_ID)
    for right in (true, true._replace(header=receipt.header_digest(other, sealed))):
        with pytest.raises(Refused, match=f"{made.OTHER_ID}, not {ID}"):
            right.check_header(other, sealed)
    with pytest.raises(Refused, match="version 3"):
        true.check_header(b"version=3\nhmac-algorithm=sha1\nencrypted=False\ncompressed=False\n", b"")
    for changed in ((plain + b"x=y\n", sealed), (plain, sealed[:-1] + b"x"), (plain, b""), (plain[:-1], sealed)):
        with pytest.raises(Damaged, match="header of the archive"):
            true.check_header(*changed)
    with pytest.raises(Damaged, match="backup-header: "):
        true.check_header(b"nonsense", sealed)


MEMBERS = [
    ("backup-header", b"plain"),
    ("backup-header.hmac", b"sealed"),
    ("qb-key.age", b"wrapped"),
    ("qb-key.scrypt", b"wrapped"),
    ("qb-key.command", b""),
    ("qb-signature", b"signed"),
    ("qb-key.000.enc", b"a file that is called so"),
    ("vm1/root.img.000.enc", b""),
    ("qb-manifest.000.enc", b"manifest"),
]


def taken_in(members: list[tuple[str, bytes]], step: int = 1 << 20) -> Receipt:
    digest = ContentDigest()
    for name, content in members:
        digest.begin(name, len(content))
        for at in range(0, len(content), step):
            digest.update(memoryview(content)[at : at + step])
    return digest.receipt(ID)


def test_what_it_is_made_of() -> None:
    """Computed according to the format: everything counts except key members and signature."""
    counted = [(name, content) for at, (name, content) in enumerate(MEMBERS) if at not in (2, 3, 4, 5)]
    bytes_of_all = b"".join(name.encode() + b"\0%d\0" % len(content) + content for name, content in counted)
    expected = Receipt(
        ID,
        hashlib.sha256(b"plainsealed").hexdigest(),
        hashlib.sha256(b"manifest").hexdigest(),
        hashlib.sha256(bytes_of_all).hexdigest(),
        sum(len(content) for _, content in counted),
    )
    assert taken_in(MEMBERS) == taken_in(MEMBERS, 1) == taken_in(counted) == expected
    assert header_digest(b"plain", b"sealed") == expected.header


def test_names_lengths_and_order_count() -> None:
    def content(members: list[tuple[str, bytes]]) -> str:
        return taken_in(members).content

    a, b = ("a.000.enc", b"12"), ("b.000.enc", b"34")
    different = [[a, b], [b, a], [a], [(a[0], b"1"), (b[0], b"234")], [("a.000.encb.000.enc", b"1234")], [a, a]]
    assert len({content(members) for members in different}) == len(different)


def test_sealer_and_reader_find_the_same() -> None:
    out = io.BytesIO()
    digest = ContentDigest()
    settings = Settings(made.ID, 1000, Parameters(10), 1_790_000_000)
    sources = [Source(name, lambda: Reader(io.BytesIO(bytes(2500))), lambda: None) for name in ("qubes.xml", "a/b")]
    sealing = Sealer(Writer(out), made.PASSPHRASE, settings, 2, digest=digest)
    list(sealing.write_archive(sources, header.new_header(made.ID, "none", 1000)))
    reader = outertar.MemberReader(Reader(io.BytesIO(out.getvalue())), lambda _name: 1 << 30)
    members = []
    while (member := reader.next()) is not None:
        members.append((member.untrusted_name, reader.read_all()))
    found = digest.receipt(ID)
    assert found == taken_in(members)
    assert found.size == sum(len(content) for _, content in members)
    limits = Limits(memory=1 << 30, work=1 << 20)
    archive = Opening(Reader(io.BytesIO(out.getvalue())), limits).archive(made.PASSPHRASE, lambda _: 2, pytest.fail)
    assert archive.manifest_digest == ""
    list(archive.events(lambda _name: False))
    assert archive.manifest_digest == found.manifest == hashlib.sha256(members[-1][1]).hexdigest()


def test_what_qb_header_writes_is_what_a_whole_archive_begins_with() -> None:
    settings = Settings(made.ID, 1000, Parameters(10), 1_790_000_000)
    backup = header.new_header(made.ID, "none", 1000)
    data = sealer.beginning(made.PASSPHRASE, backup, settings)
    reader = outertar.MemberReader(Reader(io.BytesIO(data)), lambda _name: 4096)
    names = []
    while (member := reader.next()) is not None:
        names.append(member.untrusted_name)
    assert names == ["backup-header", "backup-header.hmac"]
