"""What the tests of filling logical volumes share."""

from __future__ import annotations

import array
import fcntl
import termios
import time
from pathlib import Path

from lvm import guest
from lvm.guest import Ended, MiB, Program

_ZEROS = bytes(MiB)


def stream(size: int, pieces: dict[int, bytes]) -> bytes:
    """A volume stream with data at these offsets."""
    lines = [f"{offset} {len(data)}\n" for offset, data in pieces.items()]
    total = sum(map(len, pieces.values()))
    head = f"qb-volume 1\nsize {size}\nextents {len(lines)}\n{''.join(lines)}\n"
    return b"".join((head.encode(), *pieces.values(), f"end {total}\n".encode()))


def volwrite(*arguments: str | Path, data: bytes, **changes: str) -> Ended:
    """Runs qb-volwrite to its end."""
    return guest.program("qb-volwrite", *arguments, data=data, **changes)


def good(ended: Ended) -> None:
    """It ended well, and without a word."""
    assert (ended.status, ended.stderr) == (0, "")


def holds(device: Path, size: int, pieces: dict[int, bytes]) -> bool:
    """Whether a device has size bytes: zeros, but for these pieces."""
    with device.open("rb", buffering=0) as file:
        if file.seek(0, 2) != size:
            return False
        at = 0
        for offset, data in [*sorted(pieces.items()), (size, b"")]:
            file.seek(at)
            while at < offset:
                block = file.read(min(offset - at, MiB))
                if block != _ZEROS[: len(block)]:
                    return False
                at += len(block)
            if file.read(len(data)) != data:
                return False
            at = offset + len(data)
    return True


def attributes(full: str, fields: str) -> list[str]:
    """What lvs tells of a volume."""
    text = guest.lvm("lvs", "--noheadings", "--separator", "|", "--units", "b", "--nosuffix", "-o", fields, full)
    return text.strip().split("|")


def used(pool: str) -> float:
    """Percent of a pool's data that is used."""
    return float(attributes(pool, "data_percent")[0])


def temporary(vg: str) -> list[Path]:
    """Devices of volumes that are not whole yet."""
    return sorted(Path("/dev/mapper").glob(f"{vg}-qbtools_*"))


class Fed(Program):
    """qb-volwrite, with a stdin that the test gives piece by piece."""

    def __init__(self, vg: str, *arguments: str | Path, **changes: str) -> None:
        super().__init__("qb-volwrite", *arguments, fed=True, **changes)
        self._vg = vg

    def feed_until_read(self, data: bytes) -> None:
        """Gives data and waits until all of it was taken from the pipe."""
        self.give(data)
        left = array.array("i", [1])
        while left[0]:
            time.sleep(0.02)
            fcntl.ioctl(self.feed, termios.FIONREAD, left)

    def begin(self, data: bytes) -> Path:
        """Gives the first part of a stream; the device that is being filled."""
        before = set(temporary(self._vg))
        self.feed_until_read(data)
        deadline = time.monotonic() + 60
        while not (made := set(temporary(self._vg)) - before):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return made.pop()
