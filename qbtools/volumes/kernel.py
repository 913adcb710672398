"""Kernel interfaces for files and block devices that Python lacks.

The numbers are those of linux/fs.h, linux/falloc.h and linux/fcntl.h. The ioctl numbers are the same on every
architecture, except for the bits for the direction of the data and the sizes of size_t and long.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import struct

_READ = 0x40000000 if os.uname().machine.startswith(("ppc", "mips", "sparc", "alpha", "parisc")) else 0x80000000
_BLKGETSIZE64 = _READ | struct.calcsize("N") << 16 | 0x1272
_WRITE = 0xC0000000 - _READ
_NONE = 0x20000000 if _READ == 0x40000000 else 0
_BLKZEROOUT = _NONE | 0x127F
_BLKROGET = _NONE | 0x125E
_FICLONE = _WRITE | struct.calcsize("i") << 16 | 0x9409
_FICLONERANGE = _WRITE | struct.calcsize("qQQQ") << 16 | 0x940D
_FS_IOC_GETFLAGS = _READ | struct.calcsize("l") << 16 | 0x6601
_FS_IOC_SETFLAGS = _WRITE | struct.calcsize("l") << 16 | 0x6602
_FS_IOC_FSGETXATTR = _READ | 28 << 16 | 0x581F
_FS_IOC_FIEMAP = _READ | _WRITE | 32 << 16 | 0x660B
_FS_XFLAG_REALTIME = 1
_FS_COMPR_FL, _FS_NOCOMP_FL, _FS_NOCOW_FL = 0x4, 0x400, 0x800000

_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 1, 2

UNSUPPORTED = frozenset((errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY, errno.ENODEV, errno.EPERM))
"""The errors of calls that this kernel, device or file system does not support. Then another way is needed."""


def text(path: str) -> str:
    """The content of a small file of /proc, /sys or /etc; empty if it cannot be read."""
    try:
        with io.FileIO(path) as file:
            return file.readall().decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def device_size(fd: int) -> int:
    """The size of the block device in bytes. OSError of the kernel."""
    (size,) = struct.unpack("Q", fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8)))
    return int(size)


def device_is_read_only(fd: int) -> bool:
    """Whether the block device is read-only; it may still be open for writing. OSError."""
    (answer,) = struct.unpack("i", fcntl.ioctl(fd, _BLKROGET, bytes(4)))
    return bool(answer)


def zero_out(fd: int, offset: int, length: int) -> None:
    """Zeros a range of a block device with its own command, if it has one. The blocks stay allocated. OSError."""
    fcntl.ioctl(fd, _BLKZEROOUT, struct.pack("QQ", offset, length))


def punch(fd: int, offset: int, length: int) -> None:
    """Makes a range of a file or block device a hole that reads as zeros. OSError, in UNSUPPORTED if it cannot."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(libc, "fallocate64", None) or libc.fallocate
    mode = _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE
    if call(ctypes.c_int(fd), ctypes.c_int(mode), ctypes.c_int64(offset), ctypes.c_int64(length)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def clone(fd: int, source: int) -> None:
    """Makes the empty file fd a copy of the file source that shares its blocks. OSError if it cannot.

    Data of source that is not on the disk yet is written first.
    """
    fcntl.ioctl(fd, _FICLONE, source)


def clone_beginning(fd: int, source: int, length: int) -> None:
    """Makes fd share the first length bytes of source, whole blocks. OSError if clone() could not work either."""
    fcntl.ioctl(fd, _FICLONERANGE, struct.pack("qQQQ", source, 0, length, 0))


def take_over_nocow(fd: int, source: int) -> None:
    """Gives the empty file fd the attribute +C (no copy on write; chattr(1)) if source has it, or else removes it.

    btrfs clones only between files that agree in it. Compression, which excludes it, is removed. OSError of
    UNSUPPORTED if the file system has no attributes.
    """
    theirs, ours = (struct.unpack("i", fcntl.ioctl(each, _FS_IOC_GETFLAGS, bytes(4)))[0] for each in (source, fd))
    if (theirs ^ ours) & _FS_NOCOW_FL:
        plain = ours & ~(_FS_COMPR_FL | _FS_NOCOMP_FL)
        for flags in (plain, plain ^ _FS_NOCOW_FL):  # not both in one step
            fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("i", flags))


def sync_file_system(fd: int) -> None:
    """Writes all cached data of fd's file system to its device. OSError."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).syncfs(fd):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def on_realtime_device(fd: int) -> bool:
    """Whether the data of a file is on the second device that a file system may have for data. OSError."""
    (flags,) = struct.unpack_from("I", fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, bytes(28)))
    return bool(flags & _FS_XFLAG_REALTIME)


def file_extents(fd: int, start: int) -> list[tuple[int, int, int, int]]:
    """Some extents of a file, in order, from that offset on: logical offset, physical offset, bytes, FIEMAP_EXTENT_*
    (linux/fiemap.h). None means that no extent follows. The file's data in memory is written first. OSError."""
    size, count = 56, 512
    buffer = bytearray(32 + size * count)
    struct.pack_into("QQIIII", buffer, 0, start, (1 << 64) - 1 - start, 1, 0, count, 0)  # 1: FIEMAP_FLAG_SYNC
    fcntl.ioctl(fd, _FS_IOC_FIEMAP, buffer)
    (found,) = struct.unpack_from("I", buffer, 20)
    return [struct.unpack_from("QQQ16xI", buffer, 32 + size * at) for at in range(min(found, count))]


def next_data(fd: int, at: int, end: int) -> int:
    """The first offset >= at that has data; end if there is none before it; at if holes are not known."""
    try:
        return min(os.lseek(fd, at, os.SEEK_DATA), end)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return end
        if error.errno in UNSUPPORTED:
            return at
        raise


def next_hole(fd: int, at: int, end: int) -> int:
    """The first offset >= at without data; end if there is none before it, or if holes are not known."""
    try:
        return min(os.lseek(fd, at, os.SEEK_HOLE), end)
    except OSError as error:
        if error.errno == errno.ENXIO or error.errno in UNSUPPORTED:
            return end
        raise
