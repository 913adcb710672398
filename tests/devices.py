"""Helpers for tests of volumes: loop devices, small file systems (removed when the `with` ends), files, streams."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import need, need_root


def _call(*argv: str | Path) -> str:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{argv}: {done.stderr}")
    return done.stdout.strip()


@contextmanager
def loop(backing: Path, *options: str) -> Iterator[Path]:
    """A loop device over a file or another device; options are losetup's."""
    need_root()
    need("losetup")
    device = Path(_call("losetup", "--find", "--show", *options, backing))
    try:
        yield device
    finally:
        _call("losetup", "--detach", device)


@contextmanager
def mounted(place: Path, source: Path | str, kind: str, *options: str) -> Iterator[Path]:
    """A file system, mounted on a new directory; options are mount's."""
    need_root()
    place.mkdir()
    _call("mount", "-t", kind, *options, source, place)
    try:
        yield place
    finally:
        _call("umount", place)
        place.rmdir()


@contextmanager
def file_system(parent: Path, kind: str, size: int) -> Iterator[Path]:
    """A new file system of a kind that mkfs knows, in a sparse file of size bytes below parent."""
    need_root()
    need(f"mkfs.{kind}")
    image = parent / f"{kind}.image"
    image.touch()
    with image.open("r+b") as file:
        file.truncate(size)
    _call(f"mkfs.{kind}", "-q", image)
    try:
        with loop(image) as device, mounted(parent / kind, device, kind) as place:
            yield place
    finally:
        image.unlink()


@contextmanager
def tmpfs(place: Path, size: int) -> Iterator[Path]:
    """A file system in memory that holds size bytes."""
    with mounted(place, "none", "tmpfs", "-o", f"size={size}") as found:
        yield found


def make_sparse(path: Path, size: int, *pieces: tuple[int, bytes]) -> Path:
    """A file of size bytes with the pieces (offset, bytes), and with holes elsewhere."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
    return path


def volume_stream(size: int, *pieces: tuple[int, bytes], end: int | None = None) -> bytes:
    """A volume stream, made by hand. end: what its end line says, if not the truth."""
    lines = "".join(f"{offset} {len(data)}\n" for offset, data in pieces)
    total = sum(len(data) for _offset, data in pieces) if end is None else end
    head = f"qb-volume 1\nsize {size}\nextents {len(pieces)}\n{lines}\n"
    return head.encode() + b"".join(data for _offset, data in pieces) + b"end %d\n" % total


def peak_memory(process: int) -> int:
    """The most bytes of memory that a running process has had since it was executed.

    (ru_maxrss is of no use: it counts what the process had before exec, which was pytest's.)
    """
    text = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmHWM:")))
