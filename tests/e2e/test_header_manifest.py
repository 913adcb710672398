"""qb-header and qb-manifest: what they write and refuse, and archives that cat joins from pieces."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
from support import bash, environment, run

from qbtools.formats import chunks, container, header, manifest, outertar
from qbtools.formats.container import Parameters

SECRET = b"correct horse"
ID = "20261124T060000-0123456789abcdef"
CHEAP = ("--logn", "10")
A = "a" * 64


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return passphrase_file(tmp_path_factory.mktemp("secret"), SECRET)


def passphrase_file(folder: Path, text: bytes) -> Path:
    path = folder / "passphrase"
    path.write_bytes(text + b"\n")
    path.chmod(0o600)
    return path


def ok(*argv: str | Path, data: bytes = b"", secret: Path | None = None) -> bytes:
    """The output of a program that must succeed without messages."""
    done = run(*argv, *(("--passphrase-file", secret) if secret else ()), data=data)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    return done.stdout


def fails(status: int, message: str, *argv: str | Path, data: bytes = b"", secret: Path | None = None) -> None:
    """A program must end with status, this text in its one line of error, and nothing on stdout."""
    done = run(*argv, *(("--passphrase-file", secret) if secret else ()), data=data)
    error = done.stderr.decode().splitlines()
    assert done.returncode == status, error
    assert done.stdout == b""
    assert message in error[0]
    assert ": error: " in error[0]
    assert all(line.startswith("hint: ") for line in error[1:])


@pytest.fixture(scope="module")
def head(secret: Path) -> bytes:
    """The two header members."""
    return ok("qb-header", "write", "--backup-id", ID, *CHEAP, secret=secret)


def header_of(text: bytes, sealed: bytes | None = None, passphrase: bytes = SECRET) -> bytes:
    """Header members with any text, sealed as it should be (or with another content sealed)."""
    key = chunks.header_passphrase(passphrase)
    hmac = container.seal_bytes(key, Parameters(10), text if sealed is None else sealed)
    return member("backup-header", text) + member("backup-header.hmac", hmac)


def member(name: str, data: bytes) -> bytes:
    return outertar.header(name, len(data), 0) + data + outertar.padding(len(data))


# qb-header id


def test_ids() -> None:
    made = [ok("qb-header", "id").decode() for _ in range(2)]
    for text in made:
        assert re.fullmatch(r"20\d{6}T\d{6}-[0-9a-f]{16}\n", text)
        assert header.backup_id_problem(text.rstrip("\n")) is None
    assert made[0][-17:] != made[1][-17:]


# qb-header write


def test_what_is_written(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "h").write_bytes(head)
    assert len(head) == 4 * 512
    with tarfile.open(tmp_path / "h") as archive:
        assert archive.getnames() == ["backup-header", "backup-header.hmac"]
        plain, sealed = (archive.extractfile(name) for name in archive.getnames())
        assert plain and sealed
        text = plain.read()
        assert text == header.serialise(header.new_header(ID, "gzip", 104857600))
        assert container.open_bytes(b"backup-header!" + SECRET, sealed.read()) == text


def test_what_the_options_say(secret: Path) -> None:
    written = ok(
        *("qb-header", "write", "--backup-id", "x", "--compression", "none", "--chunk-size", "1.5K", "--no-manifest"),
        *CHEAP,
        secret=secret,
    )
    found = ok("qb-header", "read", "-", data=written, secret=secret).decode().splitlines()
    assert found == [
        *("version=4", "encrypted=True", "compressed=False", "compression-filter=gzip", "hmac-algorithm=scrypt"),
        *("backup-id=x", "chunk-size=1536"),
    ]


def test_logn_is_what_the_container_says(head: bytes, secret: Path) -> None:
    assert container.parse_fixed(head[3 * 512 :], "h")[0] == Parameters(10, 8, 1)
    written = ok("qb-header", "write", "--backup-id", ID, "--logn", "11", secret=secret)
    assert container.parse_fixed(written[3 * 512 :], "h")[0] == Parameters(11, 8, 1)


@pytest.mark.parametrize(
    ("status", "message", "argv"),
    [
        (2, "--backup-id", ["--backup-id", "-x"]),
        (2, "--backup-id", ["--backup-id", "a b"]),
        (2, "--backup-id", ["--backup-id", ""]),
        (5, "the backup ID is too long", ["--backup-id", "x" * 4000]),
        (2, "--compression", ["--backup-id", ID, "--compression", "pigz"]),
        (2, "--compression", ["--backup-id", ID, "--compression", "gzip -9"]),
        (2, "--chunk-size", ["--backup-id", ID, "--chunk-size", "0"]),
        (2, "--chunk-size", ["--backup-id", ID, "--chunk-size", "8G"]),
        (2, "--chunk-size", ["--backup-id", ID, "--chunk-size", "100MB"]),
        (2, "--logn", ["--backup-id", ID, "--logn", "9"]),
        (2, "--logn", ["--backup-id", ID, "--logn", "23"]),
        (2, "no --backup-id given", []),
        (2, "unexpected argument: extra", ["--backup-id", ID, "extra"]),
        (2, "--json does not go with the other arguments", ["--backup-id", ID, "--json"]),
    ],
)
def test_what_cannot_be_written(secret: Path, status: int, message: str, argv: list[str]) -> None:
    cheap = () if "--logn" in argv else CHEAP
    fails(status, message, "qb-header", "write", *argv, *cheap, secret=secret)


def test_the_largest_chunk_size(secret: Path) -> None:
    ok("qb-header", "write", "--backup-id", ID, "--chunk-size", str((1 << 33) - 129), *CHEAP, secret=secret)


@pytest.mark.parametrize("program", ["qb-header", "qb-manifest"])
def test_binary_is_not_written_to_a_terminal(tmp_path: Path, secret: Path, program: str) -> None:
    (tmp_path / "records").write_text(f"{ID} 1 1 {A} x\n")
    words = ["write"] if program == "qb-header" else [str(tmp_path / "records")]
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [program, *words, "--backup-id", ID, *CHEAP, "--passphrase-file", str(secret)],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.PIPE,
            env=environment(),
            timeout=60,
            check=False,
        )
    finally:
        os.close(theirs)
        os.close(ours)
    assert done.returncode == 2
    assert b"refusing to write binary data to a terminal" in done.stderr


# qb-header read


def test_reading_a_file_and_a_pipe(tmp_path: Path, head: bytes, secret: Path) -> None:
    (tmp_path / "archive").write_bytes(head)
    text = ok("qb-header", "read", tmp_path / "archive", secret=secret)
    assert text == header.serialise(header.new_header(ID, "gzip", 104857600))
    assert ok("qb-header", "read", "-", data=head, secret=secret) == text


def test_json(head: bytes, secret: Path) -> None:
    found = json.loads(ok("qb-header", "read", "--json", "-", data=head, secret=secret))
    expected = {"version": 4, "backup_id": ID, "compression": "gzip", "chunk_size": 104857600, "manifest": True}
    expected |= {"key": False, "signed": False, "base": None}
    assert found == expected
    bare = b"version=4\nencrypted=1\ncompressed=no\nhmac-algorithm=scrypt\nbackup-id=q"
    found = json.loads(ok("qb-header", "read", "--json", "-", data=header_of(bare), secret=secret))
    expected = {"version": 4, "backup_id": "q", "compression": "none", "chunk_size": None, "manifest": False}
    assert found == expected | {"key": False, "signed": False, "base": None}


def test_a_pipe_need_not_end(head: bytes, secret: Path) -> None:
    """The program does not wait for data after the header."""
    process = subprocess.Popen(
        ["qb-header", "read", "-", "--passphrase-file", str(secret)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdin and process.stdout
    process.stdin.write(head)
    process.stdin.flush()
    assert process.wait(timeout=60) == 0
    assert process.stdout.read().startswith(b"version=4\n")
    process.stdin.close()
    process.stdout.close()


def test_what_follows_the_header_does_not_matter(head: bytes, secret: Path) -> None:
    ok("qb-header", "read", "-", data=head + b"no tar at all" * 1000, secret=secret)


def test_a_wrong_passphrase(tmp_path: Path, head: bytes) -> None:
    wrong = passphrase_file(tmp_path, b"correct horsf")
    fails(3, "the passphrase is wrong", "qb-header", "read", "-", data=head, secret=wrong)


def test_expectations(head: bytes, secret: Path) -> None:
    read = ("qb-header", "read", "-")
    ok(*read, "--expect-id", ID, "--require-version", "4", data=head, secret=secret)
    other = "20261124T060000-0123456789abcdee"
    fails(5, f"has the backup ID {ID}, not {other}", *read, "--expect-id", other, data=head, secret=secret)
    fails(5, "has version 4, not 3", *read, "--require-version", "3", data=head, secret=secret)


# Offsets of the two members: 0 header, 512 text, 1024 header, 1536 container (96, text, 32), padding.
TEXT_SIZE = len(header.serialise(header.new_header(ID, "gzip", 104857600)))
SEALED = 1536
REGIONS = {
    "name": (0, 4, "a tar archive, not a sealed archive"),
    "checksum": (148, 4, "checksum"),
    "type": (156, 4, "checksum"),
    "text": (512, 4, "backup-header differs from its sealed copy"),
    "text-padding": (512 + TEXT_SIZE, 4, "padded with something other than zeros"),
    "second-name": (1024, 4, "checksum"),
    "magic": (SEALED, 4, "backup-header.hmac is not an scrypt container"),
    "version": (SEALED + 6, 4, "unknown version"),
    "log-n": (SEALED + 7, 4, "checksum"),
    "r": (SEALED + 11, 4, "checksum"),
    "p": (SEALED + 15, 4, "checksum"),
    "salt": (SEALED + 16, 4, "checksum"),
    "plain-checksum": (SEALED + 48, 4, "checksum"),
    "keyed-check": (SEALED + 64, 3, "the passphrase is wrong"),
    "data": (SEALED + 96, 4, "does not authenticate"),
    "mac": (SEALED + 96 + TEXT_SIZE, 4, "does not authenticate"),
    "padding": (SEALED + 128 + TEXT_SIZE, 4, "padded with something other than zeros"),
}


@pytest.mark.parametrize("region", REGIONS)
def test_a_flipped_bit(head: bytes, secret: Path, region: str) -> None:
    at, status, message = REGIONS[region]
    data = bytearray(head)
    data[at] ^= 1
    if region == "name":
        data[:512] = outertar.header("cackup-header", TEXT_SIZE, 0)
    fails(status, message, "qb-header", "read", "-", data=bytes(data), secret=secret)


EMPTY = "the archive is empty: did the program before fail?"


@pytest.mark.parametrize("size", [0, 1, 511, 512, 600, 1023, 1024, 1500, 1536, 1600, SEALED + 96, 2047])
def test_cut(head: bytes, secret: Path, size: int) -> None:
    message = {0: EMPTY, 1024: "backup-header"}.get(size, "the archive ends in the middle of")
    fails(4, message, "qb-header", "read", "-", data=head[:size], secret=secret)


TEXT = header.serialise(header.new_header(ID, "gzip", 5))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header_of(TEXT, sealed=TEXT + b"x=y\n"), "backup-header differs from its sealed copy"),
        (header_of(TEXT + b"x=y\n", sealed=TEXT), "backup-header differs from its sealed copy"),
        (header_of(TEXT.replace(b"version=4", b"version=5")), "unknown version 5"),
        (header_of(TEXT.replace(b"gzip", b"sh")), "compression-filter has an unknown value: sh"),
        (header_of(TEXT + b"version=4\n"), "version occurs twice"),
        (header_of(TEXT.replace(b"backup-id", b"ignored")), "backup-id is missing"),
        (header_of("farbe=grün\n".encode() + TEXT), "not ASCII"),
        (header_of(TEXT + b"x=" + b"y" * 3900), "backup-header.hmac is too long"),
        (
            header_of(b"version=3\nencrypted=no\ncompressed=no\nhmac-algorithm=sha1\n"),
            "version 3",
        ),
        (member("backup-header.hmac", TEXT) + member("backup-header", TEXT), "backup-header is not where it must be"),
        (member("backup-header", TEXT), "backup-header.hmac is not where it must be"),
        (member("backup-header", TEXT) * 2, "backup-header.hmac is not where it must be"),
        (member("qubes.xml.000.enc", TEXT), "backup-header is not where it must be"),
        (member("backup-header", TEXT) + member("backup-header.hmac", b""), "backup-header.hmac is too short"),
        (member("backup-header", TEXT) + member("backup-header.hmac", b"scrypt"), "too short"),
        (member("backup-header", TEXT) + member("backup-header.hmac", b"scrypt" + bytes(90)), "checksum"),
        (member("./backup-header", TEXT), "not a relative path"),
        (member("backup-header", bytes(5000)), "is too long"),
        (b"#!/bin/sh\n" * 100, "the archive is not a sealed archive"),
        (bytes(10240), "backup-header is not where it must be"),
        (b"", EMPTY),
    ],
)
def test_what_is_no_header(secret: Path, data: bytes, message: str) -> None:
    fails(4, message, "qb-header", "read", "-", data=data, secret=secret)


def test_the_sealed_text_counts_for_its_own_archive_only(secret: Path) -> None:
    """A chunk of the same backup in place of the header does not authenticate."""
    key = chunks.chunk_passphrase(SECRET, ID, "qubes.xml", 0)
    forged = member("backup-header", TEXT)
    forged += member("backup-header.hmac", container.seal_bytes(key, Parameters(10), TEXT))
    fails(3, "the passphrase is wrong", "qb-header", "read", "-", data=forged, secret=secret)


@pytest.mark.parametrize(
    ("log_n", "r", "p", "status"),
    [(40, 8, 1, 5), (27, 1, 1, 5), (10, 1, 1 << 17, 5), (10, 1 << 17, 1, 5), (10, 1 << 15, 1 << 15, 4), (9, 8, 1, 4)],
)
def test_hostile_parameters(secret: Path, log_n: int, r: int, p: int, status: int) -> None:
    """Refused before they use memory or time."""
    fixed = b"scrypt\0" + bytes([log_n]) + r.to_bytes(4, "big") + p.to_bytes(4, "big") + bytes(32)
    sealed = fixed + hashlib.sha256(fixed).digest()[:16] + bytes(200)
    data = member("backup-header", TEXT) + member("backup-header.hmac", sealed)
    (measured,) = bash(
        f"ulimit -v 600000; qb-header read - --passphrase-file {secret} 2>&1; echo $? >&2", data=data
    ).stderr.split()
    assert int(measured) == status


def test_limits_can_be_set(head: bytes, secret: Path) -> None:
    read = ("qb-header", "read", "-")
    fails(5, "is beyond the limit", *read, "--max-work", "12", data=head, secret=secret)
    ok(*read, "--max-work", "13", data=head, secret=secret)
    fails(5, "memory", *read, "--max-memory", "1M", data=head, secret=secret)
    ok(*read, "--max-memory", "2M", data=head, secret=secret)


def test_a_file_that_is_not_there(tmp_path: Path, secret: Path) -> None:
    fails(1, "nothing-here: No such file or directory", "qb-header", "read", tmp_path / "nothing-here", secret=secret)


# qb-manifest


def record(name: str, backup_id: str = ID) -> str:
    return f"{backup_id} 1 5 {A} {name}\n"


def test_what_the_manifest_holds(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "records").write_text(record("qubes.xml") + record("vm1/a"))
    written = ok("qb-manifest", "--backup-id", ID, *CHEAP, tmp_path / "records", secret=secret)
    assert ok("tar", "-t", data=written) == b"qb-manifest.000.enc\n"
    assert written.endswith(bytes(1024))
    sealed = ok("tar", "-xO", data=written)
    assert container.parse_fixed(sealed, "m")[0] == Parameters(10, 8, 1)
    data = container.open_bytes(f"{ID}!qb-manifest.000!".encode() + SECRET, sealed)
    assert manifest.parse(data)[0] == ID
    assert [found.name for found in manifest.parse(data)[1]] == ["qubes.xml", "vm1/a"]
    from_stdin = ok("qb-manifest", "--backup-id", ID, *CHEAP, "-", data=record("a").encode(), secret=secret)
    assert len(from_stdin) == len(written)


@pytest.mark.parametrize(
    ("status", "message", "records"),
    [
        (4, "standard input has no record: nothing was sealed", ""),
        (4, "line 2 of standard input belongs to the backup other, not to", record("a") + record("b", "other")),
        (4, "the manifest lists a, which occurs twice", record("a") * 2),
        (4, "which comes back to the directory vm1", record("vm1/a") + record("vm2/a") + record("vm1/b")),
        (4, "qubes.xml, which is not the first file", record("a") + record("qubes.xml")),
        (4, "line 1 of standard input is not a record of a sealed file", record("a")[:-1]),
        (4, "line 2 of standard input is not a record of a sealed file", record("a") + "\n"),
        (4, "line 1 of standard input is not a record of a sealed file", record("../a")),
        (4, "line 1 of standard input is not a record of a sealed file", record("qb-manifest")),
        (4, "line 1 of standard input is not a record of a sealed file", "x" * 100_000 + "\n"),
        (4, "line 1 of standard input is not a record of a sealed file", "\x1b[31m\n"),
    ],
)
def test_records_that_are_refused(secret: Path, status: int, message: str, records: str) -> None:
    write = ("qb-manifest", "--backup-id", ID, *CHEAP, "-")
    fails(status, message, *write, data=records.encode(), secret=secret)


def test_too_many_records(secret: Path) -> None:
    lines = "".join(record(f"f{number}") for number in range(chunks.MAX_FILES + 1))
    write = ("qb-manifest", "--backup-id", ID, *CHEAP, "-")
    fails(5, "more than 65536 files", *write, data=lines.encode(), secret=secret)


def test_usage_of_qb_manifest(tmp_path: Path, secret: Path) -> None:
    fails(2, "no --backup-id given", "qb-manifest", "-", secret=secret)
    fails(2, "no records given", "qb-manifest", "--backup-id", ID, secret=secret)
    fails(2, "--backup-id: ", "qb-manifest", "--backup-id", "a b", "-", data=record("a").encode(), secret=secret)
    fails(1, "No such file", "qb-manifest", "--backup-id", ID, *CHEAP, tmp_path / "none", secret=secret)


def test_no_passphrase() -> None:
    fails(2, "no passphrase", "qb-header", "write", "--backup-id", ID)
    fails(2, "no passphrase", "qb-manifest", "--backup-id", ID, "-", data=record("a").encode())


# Archives out of pieces


class Pieces:
    """The pieces of an archive: head, files, and the manifest of any of them."""

    def __init__(self, folder: Path, secret: Path, backup_id: str = ID, *options: str) -> None:
        self.secret = secret
        self.backup_id = backup_id
        self.records: dict[str, bytes] = {}
        folder.mkdir()
        self._folder = folder
        size = ("--chunk-size", "1000")
        self.head = ok("qb-header", "write", "--backup-id", backup_id, *size, *options, *CHEAP, secret=secret)
        self.a, self.b, self.c = (
            self.file(name, bytes(length)) for name, length in [("vm1/a", 2500), ("vm1/b", 0), ("vm2/c", 1000)]
        )

    def file(self, name: str, data: bytes) -> bytes:
        path = self._folder / "record"
        seal = (
            "qb-seal",
            "--opaque",
            "--backup-id",
            self.backup_id,
            "--chunk-size",
            "1000",
            "--record",
            path,
            *CHEAP,
            name,
        )
        sealed = ok(*seal, data=data, secret=self.secret)
        self.records[name] = path.read_bytes()
        path.unlink()
        return sealed

    def end(self, *names: str) -> bytes:
        data = b"".join(self.records[name] for name in names)
        return ok("qb-manifest", "--backup-id", self.backup_id, *CHEAP, "-", data=data, secret=self.secret)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory, secret: Path) -> Pieces:
    return Pieces(tmp_path_factory.mktemp("pieces") / "x", secret)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory, secret: Path) -> Pieces:
    """Another backup with the same passphrase and the same files."""
    return Pieces(tmp_path_factory.mktemp("others") / "x", secret, "other")


NAMES = ("vm1/a", "vm1/b", "vm2/c")


def verify(data: bytes, secret: Path) -> None:
    ok("qb-unseal", "--verify", data=data, secret=secret)


def not_verified(message: str, data: bytes, secret: Path) -> None:
    fails(4, message, "qb-unseal", "--verify", data=data, secret=secret)


def test_joined(pieces: Pieces) -> None:
    archive = pieces.head + pieces.a + pieces.b + pieces.c + pieces.end(*NAMES)
    verify(archive, pieces.secret)
    assert ok("qb-unseal", "vm1/a", data=archive, secret=pieces.secret) == bytes(2500)
    listed = ok("qb-unseal", "--list", data=archive, secret=pieces.secret)
    assert listed == b"vm1/a\t3\t2500\nvm1/b\t1\t0\nvm2/c\t2\t1000\n"
    assert ok("tar", "-t", data=archive).decode().split() == [
        *("backup-header", "backup-header.hmac", "vm1/a.000.enc", "vm1/a.001.enc", "vm1/a.002.enc"),
        *("vm1/b.000.enc", "vm2/c.000.enc", "vm2/c.001.enc", "qb-manifest.000.enc"),
    ]


def test_joined_in_another_order(pieces: Pieces) -> None:
    archive = pieces.head + pieces.c + pieces.b + pieces.a + pieces.end("vm2/c", "vm1/b", "vm1/a")
    verify(archive, pieces.secret)


def test_each_piece_padded_as_an_archive_of_its_own(pieces: Pieces) -> None:
    parts = (pieces.head, pieces.a, pieces.b, pieces.c)
    padded = b"".join(part + bytes(1024 + -len(part) % 10240) for part in parts)
    verify(padded + pieces.end(*NAMES) + bytes(8192), pieces.secret)


def test_joined_wrongly(pieces: Pieces, others: Pieces) -> None:
    p, o, secret = pieces, others, pieces.secret
    end = p.end(*NAMES)
    not_verified("the manifest is missing", p.head + p.a + p.b + p.c, secret)
    not_verified("vm2/c is missing", p.head + p.a + p.b + end, secret)
    not_verified("vm1/b is missing", p.head + p.a + p.c + end, secret)
    not_verified("vm1/a is missing", p.head + end, secret)
    not_verified("vm1/b comes where vm1/a is due", p.head + p.b + p.a + p.c + end, secret)
    not_verified("vm2/c is not listed in the manifest", p.head + p.a + p.b + p.c + p.end("vm1/a", "vm1/b"), secret)
    not_verified("the file occurs twice", p.head + p.a + p.b + p.a + p.c + end, secret)
    not_verified("comes back to the directory vm1", p.head + p.a + p.c + p.b + end, secret)
    not_verified("something follows", p.head + end * 2, secret)
    not_verified("something follows", p.head + p.a + p.b + p.c + end + p.c, secret)
    not_verified("a second backup-header", p.head + p.head + p.a + p.b + p.c + end, secret)
    not_verified("a second backup-header", p.head + p.a + p.b + p.c + p.head + end, secret)
    not_verified("backup-header is not where it must be", p.a + p.b + p.c + end, secret)
    not_verified("vm1/a.000.enc does not authenticate", o.head + p.a + p.b + p.c + end, secret)
    not_verified("vm1/b.000.enc does not authenticate", p.head + p.a + o.b + p.c + end, secret)
    not_verified("qb-manifest.000.enc does not authenticate", p.head + p.a + p.b + p.c + o.end(*NAMES), secret)
    not_verified("vm1/a.000.enc does not authenticate", p.head + o.a + p.b + p.c + end, secret)


def test_two_attempts_under_one_id_are_not_mixed(pieces: Pieces) -> None:
    """Each chunk authenticates, but the manifest knows which ones belong together."""
    p = pieces
    end = p.end(*NAMES)
    again = p.file("vm1/b", b"")
    not_verified("vm1/b is not the file that the manifest lists", p.head + p.a + again + p.c + end, p.secret)


def test_records_of_another_backup(tmp_path: Path, pieces: Pieces, others: Pieces) -> None:
    (tmp_path / "records").write_bytes(pieces.records["vm1/a"] + others.records["vm1/b"])
    write = ("qb-manifest", "--backup-id", ID, *CHEAP, tmp_path / "records")
    fails(4, "belongs to the backup other", *write, secret=pieces.secret)


def test_without_manifest(tmp_path: Path, secret: Path) -> None:
    p = Pieces(tmp_path / "x", secret, ID, "--no-manifest")
    fails(4, "comes where qubes.xml.000.enc is due", "qb-unseal", "--verify", data=p.head + p.a, secret=secret)
    archive = p.head + p.file("qubes.xml", b"<qubes/>") + p.a
    done = run("qb-unseal", "--verify", "--passphrase-file", secret, data=archive)
    assert done.returncode == 0
    assert b"warning: the archive has no manifest" in done.stderr
    fails(4, "vm2/c is incomplete", "qb-unseal", "--verify", "-q", data=archive + p.c[:2048], secret=secret)
