"""qb-volread --since of an NBD export: by a bitmap of qemu it gives the same increment as reading everything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from increments import digest
from nbdservers import nbdkit, qemu_nbd
from support import run

from qbtools.formats import manifest
from qbtools.formats.manifest import FileRecord

KIB, MIB = 1 << 10, 1 << 20
SIZE = 8 * MIB
NAME = "vm1/vda.img"


class Image:
    """A qcow2 image with a bitmap, and an index of the state that it had when the bitmap was begun."""

    def __init__(self, place: Path, cluster: int) -> None:
        self.place, self.path = place, place / "image"
        self.tool("qemu-img", "create", "-f", "qcow2", "-o", f"cluster_size={cluster}", self.path, SIZE)
        self.io("write -P 1 0 5M", "write -P 2 6M 1M")
        self.index(run("qb-volread", f"qcow2:{self.path}").stdout, "0")
        (place / "records").write_text(manifest.to_line("id-0", FileRecord(NAME, 1, 4000, digest("id-0"))))
        assert run("qb-delta", "--confirm", place / "0.index", place / "records").returncode == 0
        self.tool("qemu-img", "bitmap", "--add", self.path, "points")

    def tool(self, *words: str | Path | int) -> None:
        done = run(*map(str, words))
        assert done.returncode == 0, done

    def io(self, *commands: str) -> None:
        self.tool("qemu-io", *(word for command in commands for word in ("-c", command)), self.path)

    def index(self, stream: bytes, name: str, *words: str) -> tuple[bytes, bytes]:
        """What qb-delta makes of a stream, and the index."""
        path = self.place / f"{name}.index"
        done = run("qb-delta", "--index", path, "--id", f"id-{name}", "--name", NAME, *words, data=stream)
        assert (done.returncode, done.stderr) == (0, b""), done
        found = path.read_bytes()
        if words:
            path.unlink()
        return done.stdout, found

    def increment(self, bitmap: str = "points", *words: str | Path) -> tuple[int | None, str]:
        """Reads it both ways, and compares. The bytes that were read by the bitmap, None for all; and the notes."""
        base = f"--base={self.place}/0.index"
        served = words or ("-r", "-f", "qcow2", "-B", "points", self.path)
        with (nbdkit if words else qemu_nbd)(self.place, *served) as word:
            done = run("qb-volread", "-v", "--since", f"nbd:{bitmap}", base, word)
        assert done.returncode == 0, done
        whole = run("qb-volread", f"qcow2:{self.path}").stdout
        assert self.index(done.stdout, "1", base) == self.index(whole, "1", base)
        notes = done.stderr.decode()
        found = re.search(r": (\d+) bytes may have changed since id-0, only these are read\n", notes)
        assert done.stdout.startswith(b"qb-volume 2\n" if found else b"qb-volume 1\n")
        return int(found[1]) if found else None, notes


@pytest.mark.parametrize("cluster", [4 * KIB, 64 * KIB])
def test_only_what_changed_is_read(tmp_path: Path, cluster: int) -> None:
    image = Image(tmp_path, cluster)
    assert image.increment()[0] == 0
    image.io("write -P 3 100k 4k", "write -P 1 2M 1k", "write -P 4 7M 512", "write -z -u 3M 128k", "discard 4M 64k")
    assert image.increment()[0] == 2 * 64 * KIB + cluster, "zeros are not read"


def test_what_was_cut_off_and_added_again(tmp_path: Path) -> None:
    """The bitmap does not tell of it, but the map does, however short the hole is."""
    image = Image(tmp_path, 4 * KIB)
    for size in 5 * MIB - 8 * KIB, SIZE:
        image.tool("qemu-img", "resize", "-f", "qcow2", "--shrink", image.path, size)
    image.io("write -P 2 5M 64k")
    assert image.increment()[0] == 2 * 64 * KIB


def test_everything_is_read_if_the_bitmap_cannot_be_used(tmp_path: Path) -> None:
    image = Image(tmp_path, 64 * KIB)
    everything = "everything is read: "
    found, notes = image.increment("other")
    assert found is None and f"{everything}the NBD server has no bitmap other\n" in notes
    image.tool("qemu-img", "convert", "-O", "raw", image.path, tmp_path / "raw")
    found, notes = image.increment("points", "file", tmp_path / "raw")
    assert found is None and f"{everything}the NBD server has no bitmap points\n" in notes
    image.tool("qemu-img", "resize", "-f", "qcow2", image.path, SIZE + MIB)
    found, notes = image.increment()
    assert found is None and f"{everything}its size has changed\n" in notes
    base = f"--base={tmp_path}/0.index"
    done = run("qb-volread", "-v", "--since", "nbd:points", base, f"qcow2:{image.path}")
    assert done.returncode == 0 and everything.encode() in done.stderr and done.stdout.startswith(b"qb-volume 1\n")
