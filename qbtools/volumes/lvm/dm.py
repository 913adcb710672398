"""Asks the kernel's device mapper about a device, and sends it messages, without another program.

The structures are those of linux/dm-ioctl.h (`struct dm_ioctl`, `dm_target_spec`, `dm_target_msg`).
Documentation/admin-guide/device-mapper of Linux describes the status lines of targets.
"""

from __future__ import annotations

import fcntl
import os
import struct

from qbtools.errors import Failed
from qbtools.lean import NamedTuple
from qbtools.volumes import kernel

# version (3), data_size, data_start, target_count, open_count, flags, event_nr, padding, dev, name, uuid, data
_HEADER = struct.Struct("=3I2IIiIIIQ128s129s7x")
_TARGET = struct.Struct("=QQiI16s")  # sector_start, length, status, next, target_type; parameters follow
_VERSION = (4, 0, 0)
_ROOM = 1 << 14  # bytes for an answer
_TABLE_STATUS, _TARGET_MSG = 12, 14
_STATUS_TABLE_FLAG = 1 << 4
_READ_WRITE = 0xC0000000  # both directions: the same bits on every architecture


class Target(NamedTuple):
    """One target of a device's table: its type, and its parameters or its status."""

    type: str
    parameters: list[str]


def table(device: int) -> Target:
    """The only target of the live table of a device number. OSError; Failed if there is not exactly one."""
    return _ask(device, _STATUS_TABLE_FLAG)


def status(device: int) -> Target:
    """The status of the only target of a device. Errors as table()."""
    return _ask(device, 0)


def opened(device: int) -> int:
    """How often the device is open: descriptors, file systems, other devices. OSError."""
    return _call(_TABLE_STATUS, device, 0, b"")[0][6]


def message(device: int, text: str) -> None:
    """Sends a message to the target at the device's first sector. OSError from the target."""
    _call(_TARGET_MSG, device, 0, struct.pack("=Q", 0) + text.encode("ascii") + b"\0")


def name(device: int) -> str:
    """The device's name below /dev/mapper; empty if it is not a device of the device mapper."""
    return _attribute(device, "name")


def uuid(device: int) -> str:
    """The device's UUID; empty if it has none. Those of LVM begin with `LVM-`."""
    return _attribute(device, "uuid")


def number(text: str) -> int:
    """The device number of `major:minor`, as tables name devices. ValueError."""
    major, minor = text.strip().split(":")
    return os.makedev(int(major), int(minor))


def _attribute(device: int, which: str) -> str:
    return kernel.text(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/dm/{which}").strip()


def _ask(device: int, flags: int) -> Target:
    header, data = _call(_TABLE_STATUS, device, flags, b"")
    if header[5] != 1:
        raise Failed(f"/dev/mapper/{name(device)} has {header[5]} targets, not one")
    type_ = _TARGET.unpack_from(data)[4].partition(b"\0")[0]
    parameters = data[_TARGET.size :].partition(b"\0")[0]
    return Target(type_.decode("ascii", "replace"), parameters.decode("ascii", "replace").split())


def _call(command: int, device: int, flags: int, payload: bytes) -> tuple[tuple[int, ...], bytes]:
    """One ioctl on /dev/mapper/control; header and payload of the answer."""
    # A number in the kernel's "huge" encoding: new_encode_dev of linux/kdev_t.h, for all minor numbers.
    major, minor = os.major(device), os.minor(device)
    coded = (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)
    size = _HEADER.size + _ROOM
    buffer = bytearray(size)
    _HEADER.pack_into(buffer, 0, *_VERSION, size, _HEADER.size, 0, 0, flags, 0, 0, coded, b"", b"")
    buffer[_HEADER.size : _HEADER.size + len(payload)] = payload
    control = os.open("/dev/mapper/control", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(control, _READ_WRITE | _HEADER.size << 16 | 0xFD << 8 | command, buffer)
    finally:
        os.close(control)
    header = _HEADER.unpack_from(buffer)
    return header, bytes(buffer[header[4] :])
