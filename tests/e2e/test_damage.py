"""Damaged archives end to end: restored data is correct, and nothing incomplete looks complete.

In each case of the second part, Qubes' own restore continues without a message, or hangs.
"""

from __future__ import annotations

import functools
import gzip
import json
import re
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hostdirs import inventory
from support import bash, need, run
from vectors import archivebytes as made
from vectors.archivebytes import Pieces

CHUNK = 4096
VOLUMES = {"vm1": made.content("vm1", 10_000), "vm2": made.content("vm2", 5_000)}  # gzip does not make them smaller


@pytest.fixture(autouse=True)
def peers() -> None:
    need("gzip")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of two volumes, and its passphrase."""
    where = tmp_path_factory.mktemp("damage")
    for domain, data in VOLUMES.items():
        (where / f"{domain}.img").write_bytes(data)
    secret = where / "passphrase"
    secret.write_bytes(made.PASSPHRASE)
    secret.chmod(0o600)
    sources = [f"{domain}:root={where}/{domain}.img" for domain in VOLUMES]
    options = ["--logn", "10", "--chunk-size", str(CHUNK), "-o", where / "backup.qb", "--id-file", where / "id"]
    done = run("qb-backup", "create", "--passphrase-file", secret, *options, *sources)
    assert done.returncode == 0, done.stderr
    return where


class Backup:
    """The pieces of a backup, which tests join in other ways."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.id = (where / "id").read_text().strip()
        with tarfile.open(where / "backup.qb") as archive:
            self.pieces = [(info.name, _body(archive, info)) for info in archive]
        self.names = {domain: self._name(domain) for domain in VOLUMES}

    def _name(self, domain: str) -> str:
        """The name of the volume of a domain in the archive."""
        arguments = ("--passphrase-file", self.where / "passphrase", self.where / "backup.qb")
        listed = run("qb-backup", "list", *arguments).stdout.decode()
        return next(line.split("\t")[3] for line in listed.splitlines() if line.startswith(f"{domain}\t"))

    def chunk(self, domain: str, number: int) -> str:
        return f"{self.names[domain]}.{number:03d}.enc"

    def without(self, *members: str) -> Pieces:
        return [piece for piece in self.pieces if piece[0] not in members]

    def changed(self, member: str, change: Callable[[bytes], bytes]) -> Pieces:
        return [(name, change(body) if name == member else body) for name, body in self.pieces]

    def of(self, domain: str) -> Pieces:
        return [piece for piece in self.pieces if piece[0].startswith(self.names[domain])]

    def resealed(self, domain: str, inner: bytes) -> Pieces:
        """An authentic archive with other content in a volume's place."""
        files: Pieces = []
        for piece in self.pieces[2:-1]:
            if piece == self.of(domain)[0]:
                files += made.file(self.names[domain], inner, self.id, CHUNK)
            elif piece not in self.of(domain):
                files.append(piece)
        return [*self.pieces[:2], *files, made.manifest(files, self.id)]

    @functools.cache  # noqa: B019 (there is one backup)
    def inner(self, domain: str) -> bytes:
        """The compressed inner archive of a volume."""
        arguments = ("--passphrase-file", self.where / "passphrase", self.names[domain])
        return run("qb-unseal", *arguments, data=made.archive(self.pieces)).stdout

    def as_qubes(self, *dropped: str) -> bytes:
        """As Qubes would have written it: nothing marks the end of a file or of the archive."""
        text = made.header(self.id, None, manifest=False)[:-1].replace(b"=gzip", b"=pigz")
        pieces = [*made.header_pair(text), *self.pieces[2:-1]]
        return b"".join(
            block + bytes(-len(block) % 10240)
            for block in made.blocks([piece for piece in pieces if piece[0] not in dropped])
        )


def _body(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    assert file
    return file.read()


@pytest.fixture(scope="module")
def backup(folder: Path) -> Backup:
    return Backup(folder)


def restore(backup: Backup, data: bytes, to: Path) -> tuple[int, str, set[str]]:
    """Restores from a pipe. Status, messages, and the domains that came: they are true, and there is nothing else."""
    done = run("qb-backup", "restore", "--to", to, "--passphrase-file", backup.where / "passphrase", data=data)
    found = {str(path.relative_to(to)): path.read_bytes() for path in to.rglob("*") if path.is_file()}
    assert found == {f"{domain}/root.img": VOLUMES[domain] for domain in VOLUMES if f"{domain}/root.img" in found}
    assert not [path for path in to.glob(".*")]
    return done.returncode, done.stderr.decode(), {name.split("/")[0] for name in found}


def restore_to_host(backup: Backup, data: bytes, host: Path) -> tuple[int, str, list[str]]:
    """Restores to a new host. Status, messages, and the domains that it has then."""
    host.mkdir()
    secret = ("--passphrase-file", backup.where / "passphrase")
    done = run("qb-backup", "restore", "-q", "--yes", "--ignore-missing", "--host", host, *secret, data=data)
    assert done.stdout == b""
    names = list(inventory(host)) if (host / "qubes.xml").exists() else []
    assert {path.name for path in host.iterdir()} <= {*names, "qubes.xml", "qubes.xml.lock"}
    return done.returncode, done.stderr.decode(), names


def one_line(stderr: str) -> bool:
    """Whether one failure is printed, with at most one hint, besides warnings."""
    lines = [line for line in stderr.splitlines() if ": warning: " not in line]
    return ": error: " in lines[0] and [line.partition(": ")[0] for line in lines[1:]] in ([], ["hint"])


def verify(backup: Backup, data: bytes) -> tuple[int, str]:
    done = run("qb-backup", "verify", "--passphrase-file", backup.where / "passphrase", data=data)
    assert done.stdout == b""
    return done.returncode, done.stderr.decode()


def flip(body: bytes) -> bytes:
    return body[:200] + bytes([body[200] ^ 1]) + body[201:]


def test_what_is_damaged_here(backup: Backup, tmp_path: Path) -> None:
    assert [len(backup.of(domain)) for domain in VOLUMES] == [3, 2]
    assert verify(backup, made.archive(backup.pieces)) == (0, "")
    assert restore(backup, made.archive(backup.pieces), tmp_path) == (0, "", {"vm1", "vm2"})


Damage = Callable[[Backup], bytes]


def pieces(change: Callable[[Backup], Pieces]) -> Damage:
    return lambda backup: made.archive(change(backup))


def moved(backup: Backup) -> Pieces:
    """The second chunk before the first."""
    at = [name for name, _ in backup.pieces].index(backup.chunk("vm1", 0))
    found = list(backup.pieces)
    found[at], found[at + 1] = found[at + 1], found[at]
    return found


def other_machine(backup: Backup) -> Pieces:
    return backup.changed(backup.chunk("vm1", 1), lambda _body: dict(backup.pieces)[backup.chunk("vm2", 0)])


def behind(backup: Backup) -> bytes:
    return made.archive(backup.pieces) + b"x"


# What is damaged, and what may have been restored before that is met.
DAMAGE: dict[str, tuple[Damage, set[str]]] = {
    "bit of the first file": (pieces(lambda b: b.changed(b.chunk("vm1", 1), flip)), set()),
    "bit of the last file": (pieces(lambda b: b.changed(b.chunk("vm2", 1), flip)), {"vm1"}),
    "last chunk dropped": (pieces(lambda b: b.without(b.chunk("vm1", 2))), {"vm2"}),
    "chunks reordered": (pieces(moved), set()),
    "chunk of another machine": (pieces(other_machine), set()),
    "file dropped": (pieces(lambda b: b.without(*(name for name, _ in b.of("vm1")))), {"vm2"}),
    "manifest dropped": (pieces(lambda b: b.pieces[:-1]), {"vm1", "vm2"}),
    "cut": (lambda b: made.archive(b.pieces)[: -3 * CHUNK], {"vm1"}),
    "bytes behind": (behind, {"vm1", "vm2"}),
    "hostile costs": (
        pieces(lambda b: b.changed(b.chunk("vm1", 1), lambda _body: made.hostile(40, size=CHUNK))),
        set(),
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_restore_of_a_damaged_archive(name: str, backup: Backup, tmp_path: Path) -> None:
    damage, whole = DAMAGE[name]
    status, stderr, found = restore(backup, damage(backup), tmp_path)
    assert status == (5 if name == "hostile costs" else 4), stderr
    assert found <= whole
    assert re.fullmatch("qb-unseal: error: [^\n]*\n(hint: [^\n]*\n)?", stderr), stderr


# A command that takes any end of input for the end of its file.

KEEP = 'cat > "$OUT/part" && mv "$OUT/part" "$OUT/${QB_NAME//\\//_}"'


@pytest.mark.parametrize("name", DAMAGE)
def test_a_command_that_sees_no_end_but_eof(name: str, backup: Backup, tmp_path: Path) -> None:
    damage, whole = DAMAGE[name]
    secret = backup.where / "passphrase"
    done = run("qb-unseal", "--passphrase-file", secret, "--to-command", KEEP, data=damage(backup), OUT=str(tmp_path))
    assert done.returncode in (4, 5)
    kept = {path.name for path in tmp_path.iterdir()} - {"part", "qubes.xml"}
    assert kept <= {backup.names[domain].replace("/", "_") for domain in whole}
    for domain in whole:
        path = tmp_path / backup.names[domain].replace("/", "_")
        assert not path.exists() or path.read_bytes() == backup.inner(domain)


def test_stop_is_no_way_around(backup: Backup) -> None:
    """--stop only ends early if the file is known to be complete."""
    name = backup.names["vm1"]

    def stop(data: bytes) -> int:
        done = run("qb-unseal", "--passphrase-file", backup.where / "passphrase", "--stop", name, data=data)
        assert backup.inner("vm1").startswith(done.stdout)
        return done.returncode

    assert stop(made.archive(backup.pieces)) == 0
    assert stop(made.archive([*backup.pieces[:6], ("junk", b"")])) == 0  # never met
    assert stop(made.archive(backup.without(backup.chunk("vm1", 2)))) == 4
    assert stop(made.archive(backup.without(backup.chunk("vm1", 1), backup.chunk("vm1", 2)))) == 4
    assert stop(backup.as_qubes()) == 0
    assert stop(backup.as_qubes() + b"x" * 512) == 4  # nothing told that the file was whole: it read on


# What Qubes' own restore does with damage, line by line; on an archive as it writes it.


def test_as_qubes_writes_it(backup: Backup, tmp_path: Path) -> None:
    status, stderr, found = restore(backup, backup.as_qubes(), tmp_path)
    assert (status, found) == (0, {"vm1", "vm2"})
    assert "qb-unseal: warning: the archive has no manifest" in stderr


Dropped = Callable[[Backup], list[str]]


@pytest.mark.parametrize(
    ("dropped", "to_host"),
    [
        pytest.param(lambda b: [b.chunk("vm1", 0)], False, id="first chunk"),
        pytest.param(lambda b: [b.chunk("vm1", 1)], False, id="middle chunk"),
        pytest.param(lambda b: [b.chunk("vm2", 1)], True, id="last file cut"),
        pytest.param(lambda b: [b.chunk("vm1", 2)], False, id="other file cut"),
        pytest.param(lambda b: [name for name, _ in b.of("vm2")], True, id="last file"),
        pytest.param(lambda b: [name for name, _ in b.of("vm1")], False, id="other file"),
        pytest.param(lambda b: ["qubes.xml.000.enc"], True, id="metadata"),
    ],
)
def test_qubes_something_is_dropped(backup: Backup, tmp_path: Path, dropped: Dropped, to_host: bool) -> None:
    """Restored in silence there, with status 0, or it hangs.

    To a host, and for verify: what is only found at the end, and at once.
    """
    gone = dropped(backup)
    data = backup.as_qubes(*gone)
    status, stderr, found = restore(backup, data, tmp_path / "to")
    assert status == 4 and one_line(stderr), stderr
    assert not {domain for domain in VOLUMES if backup.names[domain] in " ".join(gone)} & found
    if to_host:
        status, stderr = verify(backup, data)
        assert status == 4 and one_line(stderr), stderr
        status, stderr, domains = restore_to_host(backup, data, tmp_path / "host")
        assert status == 4 and one_line(stderr), stderr
        assert domains == []


def test_qubes_chunks_are_reordered(backup: Backup, tmp_path: Path) -> None:
    """It hangs there."""
    exchange = {backup.chunk("vm1", 0): backup.chunk("vm1", 1), backup.chunk("vm1", 1): backup.chunk("vm1", 0)}
    plain = backup.as_qubes()
    for one, two in exchange.items():
        block = made.blocks([(two, dict(backup.pieces)[one])])[0]
        plain = plain.replace(made.blocks([(one, dict(backup.pieces)[one])])[0], block)
    status, stderr, found = restore(backup, plain, tmp_path)
    assert (status, found) == (4, set())
    assert f"{backup.chunk('vm1', 1)} comes where" in stderr


def test_qubes_a_chunk_does_not_authenticate(backup: Backup, tmp_path: Path) -> None:
    """An error in its log there, then "Done", and status 0."""
    sealed = dict(backup.pieces)[backup.chunk("vm2", 0)]
    status, stderr, found = restore(backup, backup.as_qubes().replace(sealed, flip(sealed)), tmp_path)
    assert (status, found) == (4, {"vm1"})
    assert f"{backup.chunk('vm2', 0)} does not authenticate" in stderr


def _plain(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Changes the inner archive inside its gzip stream."""
    return lambda data: gzip.compress(change(gzip.decompress(data)))


def _renamed(data: bytes) -> bytes:
    """Another name inside, with a corrected tar checksum."""
    block = bytearray(data[:512])
    block[2:3] = b"9"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data[512:]


# Others, and the message for each, are in test_statuses.py.
INNER: dict[str, Callable[[bytes], bytes]] = {
    "compressed stream cut": lambda data: data[:-100],
    "crc wrong": lambda data: data[:-8] + bytes([data[-8] ^ 1]) + data[-7:],
    "compressed data changed": lambda data: data[:3000] + bytes([data[3000] ^ 1]) + data[3001:],
    "end blocks cut": _plain(lambda data: data[:-1024]),
    "member twice": _plain(lambda data: data[:-1024] + data),
    "wrong member": _plain(_renamed),
    "nothing in it": _plain(lambda _data: bytes(10240)),
}


# One for each stage that finds it: verify, and what becomes of the domains of a host, do not depend on more.
TO_HOST = {"compressed stream cut", "wrong member"}


@pytest.mark.parametrize("name", INNER)
def test_an_authentic_file_with_something_else_in_it(name: str, backup: Backup, tmp_path: Path) -> None:
    """Logged there, status 0, and its verify says nothing."""
    data = made.archive(backup.resealed("vm1", INNER[name](backup.inner("vm1"))))
    assert run("qb-unseal", "--verify", "--passphrase-file", backup.where / "passphrase", data=data).returncode == 0
    status, stderr, found = restore(backup, data, tmp_path / "to")
    assert status == 4 and one_line(stderr), stderr
    assert "vm1" not in found
    if name in TO_HOST:
        status, stderr = verify(backup, data)
        assert status == 4 and one_line(stderr), stderr
        status, stderr, domains = restore_to_host(backup, data, tmp_path / "host")
        assert status == 4 and one_line(stderr), stderr
        assert domains == []


MEASURED = """
import json, resource, subprocess, sys
ended = subprocess.run(sys.argv[1:], stdin=sys.stdin, capture_output=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([ended.returncode, ended.stderr.decode(), used.ru_maxrss << 10, used.ru_utime + used.ru_stime]))
"""


COSTS: list[tuple[int, int, int, int, list[str]]] = [
    (40, 8, 1, 5, []),
    (14, 8, 32768, 5, []),
    (10, (1 << 30) - 1, 1, 5, []),
    (10, 1, (1 << 30) - 1, 5, []),
    (10, 1 << 15, 1 << 15, 4, []),
    (10, (1 << 32) - 1, (1 << 32) - 1, 4, []),
    (41, 8, 1, 4, []),
    (40, 8, 1, 5, ["--max-work", "60"]),
    (10, (1 << 30) - 1, 1, 5, ["--max-work", "60"]),
    (10, 1, (1 << 30) - 1, 5, ["--max-work", "60", "--max-memory", "8G"]),
    (22, 8, 1, 5, ["--max-memory", "1G"]),
]


# Of the header, which comes first, each of them; of a chunk, whose limits are the same, one of each kind.
@pytest.mark.parametrize(
    ("where", "log_n", "r", "p", "status", "options"),
    [*(("header", *cost) for cost in COSTS), *(("chunk", *COSTS[at]) for at in (1, 2, 6, 9))],
)
def test_costs_are_bounded(
    backup: Backup, where: str, log_n: int, r: int, p: int, status: int, options: list[str]
) -> None:
    """p = 32768 takes half an hour there. Measured: the processor's seconds, and memory."""
    member = "backup-header.hmac" if where == "header" else backup.chunk("vm1", 0)
    size = len(dict(backup.pieces)[member]) - 128
    data = made.archive(backup.changed(member, lambda _body: made.hostile(log_n, r, p, size=size)))
    words = ["qb-unseal", "--verify", "-j", "4", "--passphrase-file", str(backup.where / "passphrase"), *options]
    done = run(sys.executable, "-c", MEASURED, *words, data=data)
    ended, stderr, memory, seconds = json.loads(done.stdout)
    assert ended == status, stderr
    assert memory < 100 << 20
    assert seconds < 10


def test_a_compressor_that_fails(folder: Path) -> None:
    """Unnoticed there."""
    secret = folder / "passphrase"
    command = "head -c 10000 /dev/zero | (cat; exit 3)"
    text = f"qb-seal --opaque --logn 10 --chunk-size 4096 --passphrase-file {secret} --from-command '{command}' -"
    done = bash(text, data=b"vm1/root.img\tx\nend\n")
    assert done.returncode == 1
    assert b"vm1/root.img: the command stage 2 of 2 ended with status 3" in done.stderr
    assert run("qb-unseal", "--structure", data=done.stdout).returncode == 4
    opened = run("qb-unseal", "--passphrase-file", secret, "vm1/root.img", data=done.stdout)
    assert (opened.returncode, opened.stdout) == (4, bytes(8192))


def test_a_full_last_chunk_of_qubes(tmp_path: Path) -> None:
    """The last chunks of a file of more than 100 MiB are missing, so that its new last chunk is full."""
    secret = tmp_path / "passphrase"
    secret.write_bytes(made.PASSPHRASE)
    secret.chmod(0o600)
    text = made.header(made.ID, None, manifest=False)
    sealed = made.chunk("vm1/root.img", 0, bytes(104_857_600))
    data = made.archive([*made.header_pair(text), *made.file("qubes.xml", b"x"), sealed])
    done = run("qb-unseal", "--verify", "--passphrase-file", secret, data=data)
    assert done.returncode == 0
    assert b"vm1/root.img ends with a full chunk: this archive does not show whether it is complete" in done.stderr
