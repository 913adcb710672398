"""Who else uses a block device. What is written to a device in use is torn, and its user breaks.

O_EXCL sees file systems, swap, RAID and device-mapper tables; it does not see programs that merely hold the device
open (a running machine's emulator), loop devices made over it, nor Xen's block backend.
"""

from __future__ import annotations

import io
import os
import stat
import time
from collections.abc import Iterator

_XEN = "/sys/bus/xen-backend/devices"
_LOOKS, _PAUSE = 6, 0.2  # udev looks at a device for a moment after whoever wrote it closes it


def claim(device: int) -> str:
    """In words, what the kernel has claimed the device number for, after O_EXCL was refused."""
    family = _family(device)
    for line in _lines("/proc/self/mountinfo"):
        fields = line.split()
        source = fields[fields.index("-") + 2]
        if _number(fields[2]) in family or _rdev(source) in family:
            return f"it is mounted on {fields[4]}"
    for line in _lines("/proc/swaps")[1:]:
        if _rdev(line.split()[0]) in family:
            return "it is used as swap"
    for number in family:
        for holder in _names(f"{_sys(number)}/holders"):
            return f"{holder} is built on it"
    return "another program or the kernel has claimed it"


def user(device: int, own: int) -> str | None:
    """In words, who uses the device number besides our descriptor own; None where nobody is to be seen.

    Looks for open descriptors in all processes (those of other users only for root), also on the disk that the
    device is a partition of and on the partitions that it has. Who goes away within a second is waited for.
    """
    for look in range(_LOOKS):
        if look:
            time.sleep(_PAUSE)
        found = next(_users(_family(device), own), None)
        if found is None:
            return None
    return found


def _users(family: set[int], own: int) -> Iterator[str]:
    yield from _loops(family)
    yield from _machines(family)
    yield from _processes(family, own)


def _loops(family: set[int]) -> Iterator[str]:
    """Loop devices that are built on the device, not on a file."""
    for name in _names("/sys/block"):
        for path in _lines(f"/sys/block/{name}/loop/backing_file"):
            if _rdev(path) in family:
                yield f"{name} is built on it"


def _machines(family: set[int]) -> Iterator[str]:
    """Machines that Xen's backend in the kernel serves: `major:minor`, hexadecimal (xen-blkback/xenbus.c)."""
    for name in _names(_XEN):
        for text in _lines(f"{_XEN}/{name}/physical_device"):
            if _number(text, 16) in family:
                yield f"a running machine has it ({name})"


def _processes(family: set[int], own: int) -> Iterator[str]:
    """Open descriptors, but for our own."""
    ours = f"{os.getpid()}/fd/{own}"
    for process in filter(str.isdigit, _names("/proc")):
        for fd in _names(f"/proc/{process}/fd"):
            place = f"{process}/fd/{fd}"
            if place != ours and _rdev(f"/proc/{place}") in family:
                program = "".join(_lines(f"/proc/{process}/comm"))
                yield f"process {process} ({program}) has it open"


def _family(device: int) -> set[int]:
    """The device, the disk that it is a partition of, and its own partitions."""
    family = {device}
    place = os.path.realpath(_sys(device))
    if os.path.exists(f"{place}/partition"):
        family.update(_number(line) for line in _lines(f"{os.path.dirname(place)}/dev"))
    for name in _names(place):
        if os.path.exists(f"{place}/{name}/partition"):
            family.update(_number(line) for line in _lines(f"{place}/{name}/dev"))
    return family


def _sys(device: int) -> str:
    return f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"


def _number(text: str, base: int = 10) -> int:
    """The device number of `major:minor`; -1 for anything else."""
    major, colon, minor = text.partition(":")
    try:
        return os.makedev(int(major, base), int(minor, base)) if colon else -1
    except ValueError:
        return -1


def _rdev(path: str) -> int:
    """The device number of the block device at path; -1 where there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return -1
    return found.st_rdev if stat.S_ISBLK(found.st_mode) else -1


def _names(directory: str) -> list[str]:
    """What is in a directory; nothing where it cannot be read (processes end while they are looked at)."""
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _lines(path: str) -> list[str]:
    """The lines of a file, nothing where it cannot be read."""
    try:
        with io.FileIO(path) as file:
            return os.fsdecode(file.readall()).splitlines()
    except OSError:
        return []
