"""Chains of archives, sealed by the formats alone: a full backup and increments of it, of several volumes."""

from __future__ import annotations

import gzip
import io
import os
import random
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import increments
from support import bash

from qbtools.domains import compose
from qbtools.formats import blockindex, header, manifest, sparsetar
from qbtools.formats.beginning import read_beginning
from qbtools.formats.blockindex import HEAD
from qbtools.formats.containerhead import Parameters
from qbtools.formats.deltastream import Base
from qbtools.formats.manifest import FileRecord
from qbtools.formats.outertar import MemberReader
from qbtools.formats.receipt import ContentDigest, Receipt, serialise
from qbtools.formats.sealer import Sealer, Settings, Source
from qbtools.streams import Reader, Writer, file_reader

SECRET = b"correct horse"
ROOT, PRIVATE, OTHER = "vm1/root.img", "vm1/private.img", "vm2/private.img"
BLOCK = 4096
CHUNK = 65_536


def with_passphrase(folder: Path) -> Path:
    """The folder, with the file `passphrase` for the programs."""
    (folder / "passphrase").write_bytes(SECRET)
    (folder / "passphrase").chmod(0o600)
    return folder


@dataclass
class Link:
    """One archive of a chain: its path, its receipt, the states of its volumes by archive name, and their indexes."""

    path: Path
    receipt: Receipt
    states: Mapping[str, bytes]
    records: Sequence[FileRecord]
    indexes: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def backup_id(self) -> str:
        return self.receipt.backup_id

    @property
    def base(self) -> header.Base:
        """What an archive of increments of this one names."""
        return header.Base(self.receipt.backup_id, self.receipt.manifest)


def header_of(path: Path) -> header.BackupHeader:
    """The plain header of an archive, which is not authenticated."""
    members = MemberReader(file_reader(str(path)), lambda _name: header.MAX_MEMBER)
    return header.parse(read_beginning(members, 1 << 20, alone=True).untrusted_plain)


def backup_id(number: int) -> str:
    """The ID of the backup of a day."""
    return f"202611{number:02d}T060000-{number:016x}"


def seal(
    path: Path,
    number: int,
    states: Mapping[str, bytes],
    base: Link | None = None,
    whole: Sequence[str] = (),
    metadata: bool = True,
    lie: header.Base | None | bool = False,
    change: Callable[[str, bytes], bytes] = lambda _name, stream: stream,
) -> Link:
    """Seals volumes, by archive name (vmN/VOLUME.img, in order), as increments of base, into path.

    whole: volumes that are saved whole nevertheless, as those are that base does not have. lie: what the header
    says of the base if that is not true. change: makes another stream of that of a volume.
    """
    own = backup_id(number)
    files: dict[str, bytes] = {}
    indexes: dict[str, bytes] = {}
    if metadata:
        files["qubes.xml"] = _whole_tar("qubes.xml", _metadata(states))
    for name, data in states.items():
        before = base.indexes.get(name) if base and name not in whole else None
        plain, indexes[name] = increments.saved(increments.stream(data), own, before, BLOCK, name)
        stream = change(name, plain)
        if before is None:
            files[name] = _whole_tar(name, increments.volume(stream))
        else:
            files[name] = increments.archive(stream, name)
    records, receipt = _write(path, own, files, lie if not isinstance(lie, bool) else base.base if base else None)
    for record in records:
        if record.name in indexes:
            indexes[record.name] = _confirmed(indexes[record.name], own, record)
    return Link(path, receipt, dict(states), records, indexes)


def changed(data: bytes, seed: int) -> bytes:
    """Another state of a volume: some of it is written, zeroed, cut off or added."""
    chance = random.Random(seed)
    made = bytearray(data)
    for _ in range(4):
        at, count = chance.randrange(len(data) + 1), chance.choice([1, 700, 5000, 20_000])
        made[at : at + count] = bytes(count) if chance.random() < 0.3 else chance.randbytes(count)
    size = chance.choice([len(made), len(made) // 2, len(made) + 10_000, 1])
    return bytes(made[:size].ljust(size, b"\0"))


def five(place: Path) -> list[Link]:
    """0.qb to 4.qb: a chain; root is whole again in 3, and the second machine is there from 1 on, but not in 3."""
    found: list[Link] = []
    states = {ROOT: os.urandom(200_000), PRIVATE: os.urandom(30_000) + bytes(50_000)}
    for number in range(5):
        if number:
            states = {name: changed(data, number) for name, data in states.items()}
        if number in (1, 4):
            states[OTHER] = os.urandom(40_001)
        elif number == 3:
            del states[OTHER]
        whole = [ROOT] if number == 3 else []
        base = found[-1] if found else None
        found.append(seal(place / f"{number}.qb", number + 1, states, base, whole))
    return found


def backup(place: Path, text: str) -> subprocess.CompletedProcess[bytes]:
    return bash(f"cd {place} && rm -rf to && qb-backup {text}", QB_PASSPHRASE_FILE="passphrase")


def restored(place: Path) -> dict[str, bytes]:
    """The volumes below the directory `to`, by their names in the archive."""
    paths = [path for path in (place / "to").rglob("*") if path.is_file()]
    return {f"vm{path.parent.name.removeprefix('d')}/{path.name}": path.read_bytes() for path in paths}


def fails(place: Path, text: str, status: int, message: str) -> None:
    """Ends with status and one line with message, and nothing was restored."""
    done = backup(place, text)
    lines = [line for line in done.stderr.decode().splitlines() if ": warning: " not in line]
    assert done.returncode == status, lines
    assert len(lines) <= 2
    assert ": error: " in lines[0] and message in lines[0], lines
    assert all(line.startswith("hint: ") for line in lines[1:])
    assert not (place / "to").exists() or restored(place) == {}


def _metadata(states: Mapping[str, bytes]) -> bytes:
    """A qubes.xml in which the domain dN has the number N, also where others are missing."""
    wanted: compose.Wanted = {}
    for name, data in states.items():
        directory, _, base = name.partition("/")
        volume = base.removesuffix(".img")
        wanted.setdefault(f"d{directory.removeprefix('vm')}", {})[volume] = compose.NewVolume(volume, len(data), 0)
    if not wanted:
        wanted["d9"] = {"private": compose.NewVolume("private", 0, 0)}
    text = compose.compose(wanted).decode()
    numbers = [int(domain.removeprefix("d")) for domain in wanted]
    return re.sub(r"\bvm([0-9]+)/", lambda match: f"vm{numbers[int(match[1]) - 1]}/", text).encode()


def _confirmed(index: bytes, own: str, record: FileRecord) -> bytes:
    """The index as a base, which names the line of the volume in the manifest."""
    head = blockindex.parse(index[:HEAD], "the index")
    return blockindex.serialise(head._replace(base=Base(own, manifest.line_digest(record)))) + index[HEAD:]


def _whole_tar(name: str, data: bytes) -> bytes:
    out, extents = io.BytesIO(), increments.map_of(data)
    sparsetar.write_member_header(Writer(out), name, extents)
    for offset, length in extents:
        out.write(data[offset : offset + length])
    sparsetar.write_member_end(Writer(out), extents)
    return out.getvalue()


def _write(
    path: Path, own: str, files: Mapping[str, bytes], base: header.Base | None
) -> tuple[list[FileRecord], Receipt]:
    settings, digest = Settings(own, CHUNK, Parameters(10), compression="gzip"), ContentDigest()
    sources = [
        Source(name, lambda data=data: Reader(io.BytesIO(gzip.compress(data, 1, mtime=0)), "a test"), lambda: None)
        for name, data in files.items()
    ]
    with path.open("wb") as file:
        sealer = Sealer(Writer(file, "a test"), SECRET, settings, 1, digest=digest)
        records = list(sealer.write_archive(sources, header.new_header(own, "gzip", CHUNK, base=base)))
    receipt = digest.receipt(own)
    path.with_suffix(".receipt").write_bytes(serialise(receipt))
    return records, receipt
