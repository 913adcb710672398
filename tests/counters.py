"""A process that writes all the time and makes an inconsistent image visible: two counters far apart, kept in step.

At each moment the first is equal to the second or one ahead. If the first is read some time before the second, the
second is far ahead, unless both reads show one point in time.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from running import wait_until

_WRITER = """
import mmap, os, sys, time
direct = os.O_DIRECT if sys.argv[1] == "direct" else 0
fds = [os.open(path, os.O_RDWR | direct) for path in sys.argv[4:]]
places = int(sys.argv[2]), int(sys.argv[3])
block = mmap.mmap(-1, 4096)
data = memoryview(block)[: 4096 if direct else 8]
number = 0
while True:
    number += 1
    block[:8] = number.to_bytes(8, "big")
    for fd, place in zip((fds[0], fds[-1]), places):
        os.pwrite(fd, data, place)
    time.sleep(0.0005)
"""


@contextmanager
def counting(first: int, second: int, *paths: Path, direct: bool = False) -> Iterator[int]:
    """Counts from 1 at offset first of the first file and at offset second of the last one; the process that does.

    direct: past the page cache, as a device must be written to for its blocks to change in this order.
    """
    for path, offset in (paths[0], first), (paths[-1], second):
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(bytes(8))
    how = "direct" if direct else "cached"
    with subprocess.Popen([sys.executable, "-c", _WRITER, how, str(first), str(second), *map(str, paths)]) as writer:
        try:
            wait_until(lambda: counter(paths[-1], second) > 0, "the first count")
            yield writer.pid
        finally:
            writer.kill()


def counter(path: Path, offset: int) -> int:
    """The current counter at an offset."""
    with path.open("rb") as file:
        file.seek(offset)
        return int.from_bytes(file.read(8), "big")


def advance(path: Path, offset: int) -> None:
    """Waits until a counter has advanced by a large number."""
    begin = counter(path, offset)
    wait_until(lambda: counter(path, offset) > begin + 20, "the counters")
