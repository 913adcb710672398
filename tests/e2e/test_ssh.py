"""Through a real ssh: saved on one host, stored on an untrusted one, restored; and an interrupted connection."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Running, kill
from sshhost import SshHost
from support import bash, environment
from volumefiles import filled, room, same, shapes, unexpected

CHUNK = 4096


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHost]:
    with SshHost(tmp_path_factory.mktemp("ssh")) as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("volumes")
    (place / "passphrase").write_text("over ssh\n")
    (place / "passphrase").chmod(0o600)
    for size in (0, 3 * CHUNK):
        filled(place / str(size), size)
    shapes(place)
    return place


def over(host: SshHost, folder: Path, text: str, **names: str) -> subprocess.CompletedProcess[bytes]:
    path = f"{host.programs}:{environment()['PATH']}"
    return bash(f"cd {folder} && {text}", PATH=path, QB_PASSPHRASE_FILE=f"{folder}/passphrase", **names)


def clean(done: subprocess.CompletedProcess[bytes]) -> None:
    assert (done.returncode, unexpected(done.stderr)) == (0, [])


def test_from_disk_to_disk(host: SshHost, folder: Path, tmp_path: Path) -> None:
    """The other host checks the received archive, without a passphrase, before it accepts it as complete.

    test_roundtrip.py has all sizes and shapes.
    """
    names = ["0", str(3 * CHUNK), "hole-first", "huge"]
    volumes = " ".join(f"vm1:v{name}={name}" for name in names)
    clean(
        over(
            host,
            folder,
            f"qb-backup create -q --logn 10 --chunk-size 256K --id-file $OUT.id {volumes} |"
            " ssh store qb-store backup.qb &&"
            ' ssh store cat backup.qb | qb-backup restore --expect-id "$(cat $OUT.id)" --to $OUT',
            OUT=str(tmp_path / "out"),
        )
    )
    for name in names:
        target = tmp_path / f"out/vm1/v{name}.img"
        assert same(folder / name, target)
        assert room(target) <= room(folder / name) + (1 << 17)


@pytest.mark.parametrize("size", [0, 3 * CHUNK])
def test_by_hand(size: int, host: SshHost, folder: Path, tmp_path: Path) -> None:
    """Uncompressed, so that there are several chunks; test_roundtrip.py has all sizes of these pipes."""
    clean(
        over(
            host,
            folder,
            "qb-volread $SIZE | qb-tarwrite a | qb-seal --logn 10 --chunk-size 4096 --compression none a |"
            " ssh store 'cat >a.partial && mv a.partial a.qb' &&"
            " ssh store cat a.qb | qb-unseal a | qb-tarextract | qb-volwrite $OUT",
            SIZE=str(size),
            OUT=str(tmp_path / "out"),
        )
    )
    assert same(folder / str(size), tmp_path / "out")


def test_a_volume_of_another_host(host: SshHost, folder: Path, tmp_path: Path) -> None:
    """The stages run on the host of their data; the passphrase stays here."""
    (host.home / "disk").write_bytes((folder / "hole-first").read_bytes())
    clean(
        over(
            host,
            folder,
            "ssh store 'set -o pipefail; qb-volread disk | qb-tarwrite a | gzip -c' | qb-seal --logn 10 a >$OUT.qb &&"
            " qb-unseal a <$OUT.qb | ssh store 'set -o pipefail; gzip -dc | qb-tarextract | qb-volwrite back'",
            OUT=str(tmp_path / "out"),
        )
    )
    assert same(folder / "hole-first", host.home / "back")


def test_damage_on_the_way_is_noticed(host: SshHost, folder: Path, tmp_path: Path) -> None:
    clean(over(host, folder, "qb-backup create -q --logn 10 vm1:root=hole-first | ssh store 'cat >spoilt.qb'"))
    size = (host.home / "spoilt.qb").stat().st_size
    with (host.home / "spoilt.qb").open("r+b") as file:
        file.seek(size // 2)
        byte = file.read(1)
        file.seek(size // 2)
        file.write(bytes([byte[0] ^ 1]))
    assert (
        over(host, folder, "ssh store 'qb-unseal --structure <spoilt.qb'").returncode == 0
    )  # it authenticates nothing
    done = over(host, folder, "ssh store cat spoilt.qb | qb-backup restore --to $OUT", OUT=str(tmp_path / "out"))
    assert done.returncode == 4
    assert done.stderr.endswith(b"vm1/root.img.000.enc does not authenticate: the archive is damaged here\n")
    assert not [path for path in (tmp_path / "out").rglob("*") if not path.is_dir()]


@pytest.fixture
def running(host: SshHost, folder: Path, tmp_path: Path) -> Running:
    filled(folder / "long", 12 << 20)
    made = Running(tmp_path, folder, QB_PASSPHRASE_FILE=str(folder / "passphrase"), OUT=str(tmp_path / "out"))
    made.program("ssh", (host.programs / "ssh").read_text())
    return made


def test_a_connection_that_breaks_while_saving(host: SshHost, running: Running) -> None:
    with running:
        running.start(
            "qb-volread long | valve 6000000 | qb-tarwrite a |"
            " qb-seal --logn 10 --chunk-size 512K --compression none a |"
            " ssh store 'cat >broken.partial && mv broken.partial broken.qb'"
        )
        running.hold()
        kill(running.one("ssh"), 9)
        running.release()
        assert running.end()[0] != 0
        running.gone()
    # What the other host took for the end of the stream is no archive.
    assert run_there(host, "cat broken.qb broken.partial 2>/dev/null | qb-unseal --structure").returncode == 4


def test_a_connection_that_breaks_while_restoring(host: SshHost, running: Running, tmp_path: Path) -> None:
    with running:
        running.start(
            "qb-volread long | qb-tarwrite a | qb-seal --logn 10 --chunk-size 512K --compression none a >$OUT.qb &&"
            " ssh store cat $OUT.qb | valve 6000000 | qb-unseal a | qb-tarextract | qb-volwrite $OUT"
        )
        running.hold()
        kill(running.one("ssh"), 9)
        running.release()
        status, stderr = running.end()
        running.gone()
    assert status == 4
    assert "qb-unseal: error: the archive ends in the middle of a." in stderr
    assert not (tmp_path / "out").exists()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".qb")]


def run_there(host: SshHost, text: str) -> subprocess.CompletedProcess[bytes]:
    return bash(f"cd {host.home} && {text}")
