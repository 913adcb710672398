"""Limits of the cost of opening an archive, even if its maker has the passphrase."""

from __future__ import annotations

import bz2
import sys
from pathlib import Path

import pytest
from support import run
from vectors import archivebytes as made
from vectors import tarbytes

SIZE = 400 << 20
MEASURED = """
import resource, subprocess, sys
ended = subprocess.run(sys.argv[1:], capture_output=True)
sys.stderr.write(f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10} {ended.stderr.decode()}")
sys.exit(ended.returncode)
"""


@pytest.mark.parametrize(
    "words",
    [
        "qb-seal --opaque a",
        "qb-seal --opaque --backup-id x a",
        "qb-header write --backup-id x",
        "qb-backup create vm:root=PLACE/a",
    ],
)
def test_chunks_are_not_small(words: str, tmp_path: Path) -> None:
    """Each of them costs a key derivation."""
    (tmp_path / "a").write_bytes(b"x")
    argv = words.replace("PLACE", str(tmp_path)).split()
    for size, status in (("65535", 2), ("64K", 0)):
        done = run(
            *(*argv, "--chunk-size", size, "--logn", "10"),
            **{"data": b"x", "QB_PASSPHRASE_COMMAND": "echo x", "QB_TEST_SMALL_CHUNKS": ""},  # type: ignore[arg-type]
        )
        assert done.returncode == status, done.stderr
        assert bool(done.stdout) == (status == 0)
        assert status == 0 or b"error: --chunk-size: must be between 65536 and " in done.stderr


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its metadata has 400 MiB, and a kilobyte when compressed."""
    place = tmp_path_factory.mktemp("bounds")
    block = b"<a>" + bytes(1 << 20).replace(b"\0", b"x")[3:]
    head, end = tarbytes.head(b"qubes.xml", SIZE), bytes(1024)
    data = (
        bz2.compress(head) + bz2.compress(block) * (SIZE >> 20) + bz2.compress(end)
    )  # of streams, one after the other
    text = made.header(made.ID, 104857600).replace(b"=gzip", b"=bzip2")
    files = made.file("qubes.xml", data, size=10**9)
    (place / "archive.qb").write_bytes(made.archive([*made.header_pair(text), *files, made.manifest(files)]))
    (place / "passphrase").write_bytes(made.PASSPHRASE)
    (place / "passphrase").chmod(0o600)
    (place / "host").mkdir()
    return place


@pytest.mark.parametrize("words", ["verify", "list", "restore --to to", "restore --yes --host dir:host"])
def test_the_metadata_is_bounded_on_every_way(words: str, archive: Path) -> None:
    argv = [word.replace("dir:host", f"dir:{archive}/host") for word in words.split()]
    argv = [f"{archive}/to" if word == "to" else word for word in argv]
    secret = str(archive / "passphrase")
    done = run(*(sys.executable, "-c", MEASURED, "qb-backup", *argv, archive / "archive.qb"), QB_PASSPHRASE_FILE=secret)
    peak, message = done.stderr.decode().split(maxsplit=1)
    assert (done.returncode, message) == (4, "qb-unseal: error: the metadata has more than 67108864 bytes\n")
    assert int(peak) < 350
    assert not (archive / "to").exists()
