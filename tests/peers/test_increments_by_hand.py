"""What qb-format(5) promises of increments: tar and dd alone apply them."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import increments
import pytest
from manual import examples
from support import bash, need

APPLY = examples("qb-format.5")["increment-apply"].replace("conv=notrunc", "conv=notrunc status=none")
BARE = "/usr/bin:/bin"
NAME = "vm1/private.img"


@pytest.fixture(autouse=True)
def peers() -> None:
    need("tar", "dd", "truncate", "scrypt", "gzip")


def states(seed: int) -> list[bytes]:
    """Six states: rewritten, shrunk, grown, zeroed, of odd sizes."""
    chance = random.Random(seed)
    data = chance.randbytes(300_000) + bytes(200_000)
    found = [data]
    for _ in range(5):
        changed = bytearray(found[-1])
        for _ in range(4):
            at, count = chance.randrange(500_000), chance.choice([1, 5000, 70_000, 200_000])
            changed[at : at + count] = chance.choice([bytes, chance.randbytes])(count)
        if chance.random() < 0.7:
            size = chance.choice([0, 1, 70_001, 131_072, 400_000, 511_999, 600_001])
            changed = changed[:size].ljust(size, b"\0")
        found.append(bytes(changed))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_tar_and_dd_apply_increments(seed: int, tmp_path: Path) -> None:
    index: bytes | None = None
    (tmp_path / "vm1").mkdir()
    for number, data in enumerate(states(seed)):
        stream, index = increments.saved(
            increments.stream(data, increments.map_of(data, 1 << 16)), f"id-{number}", index
        )
        if not number:
            (tmp_path / NAME).write_bytes(data)
            continue
        (tmp_path / "inc.tar").write_bytes(increments.archive(stream))
        done = bash(f"cd {tmp_path} && NAME={NAME} TAR=inc.tar && {{ {APPLY} }}", PATH=BARE)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert (tmp_path / NAME).read_bytes() == data


def test_a_merged_increment_of_odd_sizes(tmp_path: Path) -> None:
    """Its zeros may begin anywhere."""
    (tmp_path / "vm1").mkdir()
    (tmp_path / NAME).write_bytes(b"A" * 9000)
    whole = [b"A" * 9000, b"A" * 4609, b"A" * 4609 + bytes(3000) + b"B" * 500]
    index: bytes | None = None
    streams = []
    for number, data in enumerate(whole):
        stream, index = increments.saved(increments.stream(data), f"id-{number}", index)
        streams.append(stream)
    (tmp_path / "inc.tar").write_bytes(increments.archive(increments.merged(streams[1:])))
    done = bash(f"cd {tmp_path} && NAME={NAME} TAR=inc.tar && {{ {APPLY} }}", PATH=BARE)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / NAME).read_bytes() == whole[-1]


def test_from_sealed_archives(tmp_path: Path) -> None:
    """A base and two increments, each taken apart by the commands of qbtools(7) with nothing of ours."""
    (tmp_path / "passphrase").write_text("by hand\n")
    (tmp_path / "passphrase").chmod(0o600)
    contents = states(99)[:3]
    contents[1] = contents[1] or b"not empty"
    for number, data in enumerate(contents):
        (tmp_path / "v.img").write_bytes(data)
        index, receipt = (f"--base {number - 1}.{what}" if number else "" for what in ("index", "receipt"))
        text = f"""
        cd {tmp_path} && ID=$(qb-header id) &&
        qb-volread v.img | qb-delta {index} --index {number}.index --id "$ID" --name {NAME} | qb-tarwrite {NAME} |
            gzip -c | qb-seal --logn 10 --backup-id "$ID" {receipt} --complete --receipt {number}.receipt \\
            --record {number}.records {NAME} >{number}.qb && qb-delta --confirm {number}.index {number}.records"""
        made = bash(text, QB_PASSPHRASE_FILE=str(tmp_path / "passphrase"))
        assert (made.returncode, made.stderr) == (0, b"")
    page = examples("qbtools.7")
    opening = page["emergency-extract"] + page["emergency-open"] + page["emergency-chunks"]
    for number in range(3):
        place = tmp_path / f"part{number}"
        place.mkdir()
        os.rename(tmp_path / f"{number}.qb", place / "archive.qb")
        step = "emergency-increment" if number else "emergency-restore"
        (place / "commands").write_text(opening + page[step])
        done = bash(f"cd {place} && exec bash commands", data=b"by hand\n", PATH=BARE)
        assert (done.returncode, done.stderr) == (0, b""), number
    target = tmp_path / "part0/emergency"
    for number in (1, 2):
        manifest = (tmp_path / f"part{number - 1}/emergency/qb-manifest.000.enc").read_bytes()
        header = (tmp_path / f"part{number}/emergency/header").read_text()
        assert f"\nbase-manifest={hashlib.sha256(manifest).hexdigest()}\n" in header
        words = f"NAME={NAME} TAR=../../part{number}/emergency/private.tar"
        done = bash(f"cd {target} && {words} && {{ {APPLY} }}", PATH=BARE)
        assert (done.returncode, done.stderr) == (0, b"")
        assert (target / NAME).read_bytes() == contents[number]
