"""Loop devices and small file systems for the tests that need them. All of it is gone when the `with` ends."""

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
