"""What qbtools(7) promises for the day without qbtools: its commands, with nothing but tar, scrypt and gzip."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path

import pytest
from manual import examples
from support import bash, cheap_programs, need

from qbtools.formats import header
from qbtools.formats.containerhead import Parameters
from qbtools.formats.sealer import Sealer, Settings, Source
from qbtools.streams import Reader, Writer

PAGE = examples("qbtools.7")
OPEN = PAGE["emergency-extract"] + PAGE["emergency-open"] + PAGE["emergency-chunks"]
RESTORE = OPEN + PAGE["emergency-restore"]
BARE = PAGE["bare-header"] + PAGE["bare-chunks"] + "test $? -eq 0 &&\n" + PAGE["bare-archive"]
PASSPHRASE = "correct  horse 'battery' \"$stäple\" %s!"
FILE = "vm1/private.img"


@pytest.fixture(autouse=True)
def peers() -> None:
    need("tar", "scrypt", "gzip")


def volume(path: Path, size: int, spots: list[int], length: int = 5000) -> bytes:
    """A sparse file with random bytes at the given offsets; its content."""
    source = random.Random(size)
    with path.open("wb") as file:
        file.truncate(size)
        for spot in spots:
            file.seek(spot)
            file.write(source.randbytes(min(length, size - spot)))
    return path.read_bytes()


def archive(where: Path, options: str = "") -> bytes:
    """where/archive.qb, made by our programs; gives what was saved."""
    content = volume(where / "disk.img", 3_000_001, [0, 1_000_000, 2_990_000])
    (where / "passphrase").write_text(PASSPHRASE + "\n")
    (where / "passphrase").chmod(0o600)
    made = bash(
        f"cd {where} && qb-volread disk.img | qb-tarwrite {FILE} | gzip -c |"
        f" qb-seal --logn 10 {options} --passphrase-file passphrase {FILE} > archive.qb"
    )
    assert made.returncode == 0, made.stderr
    return content


def emergency(where: Path, commands: str) -> tuple[int, str, str]:
    """Runs the commands in where as a script; the passphrase is its stdin. PATH has none of our programs."""
    script = where / "commands"
    script.write_text(commands)
    data = PASSPHRASE.encode() + b"\n"
    done = bash(f"cd {where} && PATH=/usr/bin:/bin exec bash {script}", data=data, timeout=300)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_restore_of_a_sparse_volume(tmp_path: Path) -> None:
    content = archive(tmp_path, "--chunk-size 1500")
    for _turn in range(2):
        status, stdout, stderr = emergency(tmp_path, RESTORE + PAGE["emergency-check"])
        assert (status, stderr) == (0, "")
    restored = tmp_path / "emergency" / FILE
    assert restored.read_bytes() == content
    assert restored.stat().st_blocks * 512 < len(content) // 2  # its holes are holes again
    assert "compression-filter=gzip" in stdout
    assert stdout.splitlines()[-1] == f"{FILE}: complete"


@pytest.mark.parametrize("how", ["emergency-age", "emergency-wrapped"])
def test_restore_of_an_archive_that_carries_its_passphrase(tmp_path: Path, how: str) -> None:
    need("age", "age-keygen")
    made = bash(f"cd {tmp_path} && age-keygen -o backup.key")
    assert made.returncode == 0
    with cheap_programs(tmp_path / "cheap"):
        content = archive(tmp_path, '-r "$(age-keygen -y backup.key)" --wrap-passphrase')
    opened = PAGE["emergency-extract"] + PAGE[how] + PAGE["emergency-open"] + PAGE["emergency-chunks"]
    status, stdout, stderr = emergency(tmp_path, opened + PAGE["emergency-restore"] + PAGE["emergency-check"])
    assert (status, stderr) == (0, "")
    assert (tmp_path / "emergency" / FILE).read_bytes() == content
    assert "key=True" in stdout and stdout.splitlines()[-1] == f"{FILE}: complete"


def test_chunks_past_the_999th(tmp_path: Path) -> None:
    """Text order would put .1000 behind .100: the numbers have to be counted.

    The commands count from 0; here they begin shortly before the 999th, because each chunk costs some processes. Keys
    are derived with r=1, which is quicker by far; `scrypt` reads that in each chunk.
    """
    archive(tmp_path)
    data = random.Random(1).randbytes(1010)
    backup_id = "20261124T060000-0123456789abcdef"
    with (tmp_path / "archive.qb").open("wb") as file:
        sealer = Sealer(Writer(file), PASSPHRASE.encode(), Settings(backup_id, 1, Parameters(10, 1, 1)), 1)
        source = Source(FILE, lambda: Reader(io.BytesIO(data)), lambda: None)
        list(sealer.write_archive([source], header.new_header(backup_id, "gzip", 1)))
    macs = PAGE["emergency-check"].partition("chunks qb-manifest")[0]
    commands = OPEN + macs + f"chunks {FILE} >opened && macs {FILE} >macs\n"
    assert commands.count("\n    n=0\n") == 2
    status, _, stderr = emergency(tmp_path, commands.replace("\n    n=0\n", "\n    n=990\n"))
    assert (status, stderr) == (0, "")
    place = tmp_path / "emergency"
    assert (place / "opened").read_bytes() == data[990:]
    sealed = [(place / f"{FILE}.{number}.enc").read_bytes() for number in range(990, 1011)]
    assert (place / "macs").read_bytes() == b"".join(chunk[-32:] for chunk in sealed)


def test_a_missing_last_chunk_is_told_by_the_manifest(tmp_path: Path) -> None:
    archive(tmp_path, "--chunk-size 5000")
    status, _, stderr = emergency(tmp_path, OPEN + f"rm {FILE}.003.enc\n" + PAGE["emergency-restore"])
    assert status != 0
    assert "unexpected end of file" in stderr
    (tmp_path / "emergency").rename(tmp_path / "first")
    status, stdout, _ = emergency(tmp_path, OPEN + f"rm {FILE}.003.enc\n" + PAGE["emergency-check"])
    assert stdout.splitlines()[-1] == f"{FILE}: NOT COMPLETE"


def test_a_damaged_chunk_stops_the_restore(tmp_path: Path) -> None:
    archive(tmp_path, "--chunk-size 5000")
    spoil = f"printf x | dd of={FILE}.001.enc bs=1 seek=200 conv=notrunc status=none\n"
    status, stdout, stderr = emergency(tmp_path, OPEN + spoil + PAGE["emergency-restore"])
    assert status != 0
    assert "scrypt:" in stderr
    assert "private.img" not in stdout


def test_a_device_is_filled_through_cat(tmp_path: Path) -> None:
    """The page says so because tar seeks over holes; a file that already exists stands for the device."""
    content = archive(tmp_path)
    target = tmp_path / "target"
    target.write_bytes(os.urandom(len(content)))
    command = f"chunks {FILE} | gzip -dc | tar -xOf - | cat 1<>{target}\n"
    assert emergency(tmp_path, OPEN + command)[0] == 0
    assert target.read_bytes() == content


@pytest.mark.parametrize("size", [0, 1, 100, 70_000], ids=lambda size: f"{size} bytes")
def test_an_archive_made_without_us_is_read(tmp_path: Path, size: int) -> None:
    content = bare(tmp_path, size, BARE.replace("--logN 17", "--logN 10"))
    check_restore(tmp_path, content)


def test_an_archive_made_without_us_by_the_letter(tmp_path: Path) -> None:
    """As the page has it, with the full key derivation, which each look at it does again."""
    bare(tmp_path, 100, BARE)
    verified = bash(f"cd {tmp_path} && qb-unseal --verify --passphrase-file passphrase < archive.qb")
    assert (verified.returncode, verified.stderr) == (0, b"")


def test_an_archive_made_without_us_after_a_run_that_broke(tmp_path: Path) -> None:
    cheap = BARE.replace("--logN 17", "--logN 10")
    content = bare(tmp_path, 3000, cheap)
    broken = (PAGE["bare-header"] + PAGE["bare-chunks"]).replace("--logN 17", "--logN 10")
    assert emergency(tmp_path, broken)[0] == 0
    assert emergency(tmp_path, cheap)[0] == 0
    check_restore(tmp_path, content)


def test_an_archive_made_without_us_whose_last_chunk_is_empty(tmp_path: Path) -> None:
    """Nothing is compressed here, so that the inner archive has a size that we know: 10,240 bytes."""
    commands = BARE.replace("--logN 17", "--logN 10").replace("SIZE=104857600", "SIZE=2048")
    commands = commands.replace("compressed=True", "compressed=False").replace("gzip -c", "cat")
    content = bare(tmp_path, 3000, commands)
    listed = bash(f"cd {tmp_path} && qb-unseal --list --json --passphrase-file passphrase < archive.qb")
    assert (listed.returncode, listed.stderr) == (0, b"")
    assert b'"chunks": 6' in listed.stdout, listed.stdout
    restored = bash(
        f"cd {tmp_path} && qb-unseal --passphrase-file passphrase {FILE} < archive.qb |"
        " qb-tarextract | qb-volwrite restored.img"
    )
    assert (restored.returncode, restored.stderr) == (0, b"")
    assert (tmp_path / "restored.img").read_bytes() == content


def bare(where: Path, size: int, commands: str) -> bytes:
    """where/archive.qb, made by the commands; gives what was saved."""
    (where / "vm1").mkdir()
    content = volume(where / FILE, size, [0, size // 2] if size else [])
    (where / "passphrase").write_text(PASSPHRASE)
    (where / "passphrase").chmod(0o600)
    status, _, stderr = emergency(where, commands)
    assert (status, stderr) == (0, "")
    assert [path.name for path in where.glob("archive*")] == ["archive.qb"]
    return content


def check_restore(where: Path, content: bytes) -> None:
    restored = bash(
        f"cd {where} && qb-unseal --verify --passphrase-file passphrase < archive.qb &&"
        f" qb-unseal --passphrase-file passphrase {FILE} < archive.qb |"
        " gzip -dc | qb-tarextract | qb-volwrite restored.img"
    )
    assert (restored.returncode, restored.stderr) == (0, b"")
    assert (where / "restored.img").read_bytes() == content
