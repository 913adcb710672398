"""Machines for tests that need no kernel: a boot sector that writes to two disks again and again."""

from __future__ import annotations

import struct
from pathlib import Path

from support import run

SECTOR = 8
"""The sector of each disk that has the counter."""

MiB = 1 << 20

_ORIGIN, _BUFFER = 0x7C00, 0x8000
_BEGIN = bytes.fromhex("fa 31c0 8ed8 8ec0 8ed0 bc007c fb")  # cli; ds, es, ss = 0; sp = _ORIGIN; sti
_WAIT = bytes.fromhex("f4 66ff06") + struct.pack("<H", _BUFFER)  # hlt; inc dword [_BUFFER]


def _code(stride: int) -> bytes:
    """At each tick of the timer: counts; writes the counter to disk 0x80, then to disk 0x81, stride sectors further."""

    def write(disk: int, packet: int) -> bytes:  # mov si, packet; mov ax, 0x4300; mov dl, disk; int 0x13
        return b"\xbe" + struct.pack("<H", packet) + bytes.fromhex("b80043") + bytes((0xB2, disk)) + b"\xcd\x13"

    def loop_with(packet: int) -> bytes:  # add dword [packet + 8], stride
        further = bytes.fromhex("668106") + struct.pack("<HI", packet + 8, stride)
        return _WAIT + write(0x80, packet) + write(0x81, packet) + further

    loop = loop_with(_ORIGIN + len(_BEGIN) + len(loop_with(0)) + 2)
    jump = b"\xeb" + struct.pack("b", -len(loop) - 2)
    return _BEGIN + loop + jump + struct.pack("<BBHHHQ", 16, 0, 1, _BUFFER, 0, SECTOR)


def boot_disk(path: Path, size: int = 4 * MiB, stride: int = 0, fill: bytes = b"\0") -> Path:
    """A qcow2 image of a disk that starts this program.

    stride: sectors between two writes. fill: a byte, the rest of the disk.
    """
    raw = path.with_suffix(".raw")
    raw.write_bytes(_code(stride).ljust(510, b"\0") + b"\x55\xaa" + fill * (size - 512))
    done = run("qemu-img", "convert", "-O", "qcow2", raw, path)
    assert done.returncode == 0, done.stderr
    raw.unlink()
    return path


def counter(data: bytes) -> int:
    """The counter on a disk."""
    (found,) = struct.unpack_from("<I", data, SECTOR * 512)
    assert isinstance(found, int)
    return found
