"""Finds other users of a block device, and writers of a file.

Writing to a device in use damages the data and its user. Reading while others write gives an inconsistent copy.

O_EXCL detects file systems, swap, RAID and device-mapper tables. It does not detect programs that only have the device
open (such as the emulator of a running machine), loop devices on it, and Xen's block backend.
"""

from __future__ import annotations

import os
import stat
import time

from qbtools.lean import TYPE_CHECKING, suppress
from qbtools.volumes import kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_XEN = "/sys/bus/xen-backend/devices"
_ACCMODE = 3  # of the flags of an open file: reads, writes, or both
_LOOKS, _PAUSE = 6, 0.2  # udev reads a device for a moment after a writer has closed it


def claim(device: int) -> str:
    """A text that says why the kernel has claimed the device number, after O_EXCL was refused."""
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


def user(device: int, own: int, writing: bool = False) -> str | None:
    """A text that names a user of the device number, apart from our descriptor own; None if none is found.

    writing: only users who may write to it count.
    Searches the open descriptors of all processes (of other users only as root), also on the disk of a partition and
    on the partitions of a disk. A user that goes away within a second does not count.
    """

    def users() -> Iterator[str]:
        family = _family(device)
        yield from _loops(lambda path: _rdev(path) in family, writing)
        yield from _machines(family, writing)
        yield from _processes(lambda path: _rdev(path) in family, own, writing)

    return _lasting(users)


def writer(status: os.stat_result, own: int) -> str | None:
    """A text that names a writer of the file with that status, apart from our descriptor own; as user()."""

    def same(path: str) -> bool:
        try:
            return os.path.samestat(os.stat(path), status)
        except (OSError, ValueError):
            return False

    def users() -> Iterator[str]:
        yield from _loops(same, True)
        yield from _processes(same, own, True)

    return _lasting(users)


def opened() -> frozenset[tuple[int, int]]:
    """Device and inode of every file that a process has open or that a loop device has: no other has a writer.

    One look, for those who would else call writer() for thousands of files.
    """
    places = [f"/proc/{process}/fd/{fd}" for process in _ids() for fd in _names(f"/proc/{process}/fd")]
    places += [path for name in _names("/sys/block") for path in _lines(f"/sys/block/{name}/loop/backing_file")]
    found = set()
    for place in places:
        with suppress(OSError, ValueError):
            status = os.stat(place)
            found.add((status.st_dev, status.st_ino))
    return frozenset(found)


def written(device: int) -> list[int] | None:
    """Counters that grow with each write or discard on the device number; None: not known.

    They are from /sys/block/DEVICE/stat (Documentation/block/stat.rst of Linux).
    """
    if "0" in _lines(f"{_sys(device)}/queue/iostats") or "0" in _lines(f"{_sys(device)}/../queue/iostats"):
        return None
    fields = " ".join(_lines(f"{_sys(device)}/stat")).split()
    return [int(fields[at]) for at in (4, 6, 11, 13) if at < len(fields)] or None


def file_system(fd: int) -> str:
    """The type of the file system of an open file, as mount(8) calls it; empty if it is not known."""
    place = next((line.split()[1] for line in _lines(f"/proc/self/fdinfo/{fd}") if line.startswith("mnt_id:")), "")
    for fields in map(str.split, _lines("/proc/self/mountinfo")):
        if fields[0] == place:
            return fields[fields.index("-") + 1]
    return ""


def _lasting(users: Callable[[], Iterator[str]]) -> str | None:
    """The first of the users that is still there after a second."""
    for look in range(_LOOKS):
        if look:
            time.sleep(_PAUSE)
        found = next(users(), None)
        if found is None:
            return None
    return found


def _loops(ours: Callable[[str], bool], writing: bool) -> Iterator[str]:
    """Loop devices on a device or file of ours; writing: only those that are not read-only."""
    for name in _names("/sys/block"):
        for path in _lines(f"/sys/block/{name}/loop/backing_file"):
            if ours(path) and not (writing and "1" in _lines(f"/sys/block/{name}/ro")):
                yield f"{name} is built on it"


def _machines(family: set[int], writing: bool) -> Iterator[str]:
    """Machines that use the device through Xen's backend: `major:minor`, hexadecimal (xen-blkback/xenbus.c)."""
    for name in _names(_XEN):
        for text in _lines(f"{_XEN}/{name}/physical_device"):
            if _number(text, 16) in family and not (writing and "r" in _lines(f"{_XEN}/{name}/mode")):
                yield f"a running machine has it ({name})"


def _processes(ours: Callable[[str], bool], own: int, writing: bool) -> Iterator[str]:
    """Open descriptors, apart from our own; writing: only those that may write."""
    own_place = f"{os.getpid()}/fd/{own}"
    for process in _ids():
        for fd in _names(f"/proc/{process}/fd"):
            place = f"{process}/fd/{fd}"
            if place != own_place and ours(f"/proc/{place}") and not (writing and _only_reads(process, fd)):
                program = "".join(_lines(f"/proc/{process}/comm"))
                yield f"process {process} ({program}) has it open{' for writing' * writing}"


def _ids() -> Iterator[str]:
    """The IDs of all processes."""
    return filter(str.isdigit, _names("/proc"))


def _only_reads(process: str, fd: str) -> bool:
    """Whether a descriptor can only read, or do neither (O_PATH)."""
    for line in _lines(f"/proc/{process}/fdinfo/{fd}"):
        name, _, value = line.partition(":")
        if name == "flags":
            flags = int(value, 8)
            return flags & _ACCMODE == os.O_RDONLY or bool(flags & os.O_PATH)
    return True  # it is closed meanwhile


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
    """The device number of the block device at path; -1 if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return -1
    return found.st_rdev if stat.S_ISBLK(found.st_mode) else -1


def _names(directory: str) -> list[str]:
    """The names in a directory; none if it cannot be read (processes end meanwhile)."""
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _lines(path: str) -> list[str]:
    """The lines of a file; none if it cannot be read."""
    return kernel.text(path).splitlines()
