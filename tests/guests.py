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


def _code() -> bytes:
    """At each tick of the timer: counts; writes the counter to disk 0x80, then to disk 0x81."""

    def write(disk: int, packet: int) -> bytes:  # mov si, packet; mov ax, 0x4300; mov dl, disk; int 0x13
        return b"\xbe" + struct.pack("<H", packet) + bytes.fromhex("b80043") + bytes((0xB2, disk)) + b"\xcd\x13"

    loop = _WAIT + write(0x80, 0) + write(0x81, 0)
    packet = _ORIGIN + len(_BEGIN) + len(loop) + 2
    loop = _WAIT + write(0x80, packet) + write(0x81, packet)
    jump = b"\xeb" + struct.pack("b", -len(loop) - 2)
    return _BEGIN + loop + jump + struct.pack("<BBHHHQ", 16, 0, 1, _BUFFER, 0, SECTOR)


def boot_disk(path: Path, size: int = 4 * MiB) -> Path:
    """A qcow2 image of a disk that starts this program."""
    raw = path.with_suffix(".raw")
    raw.write_bytes(_code().ljust(510, b"\0") + b"\x55\xaa" + bytes(size - 512))
    done = run("qemu-img", "convert", "-O", "qcow2", raw, path)
    assert done.returncode == 0, done.stderr
    raw.unlink()
    return path


def counter(data: bytes) -> int:
    """The counter on a disk."""
    (found,) = struct.unpack_from("<I", data, SECTOR * 512)
    assert isinstance(found, int)
    return found
