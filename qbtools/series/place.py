"""Tells whether a file was copied or restored from a backup since it was written.

A file gets its inode and its time of birth when it is created, and no program can choose them. A file that contains
them is a copy if its own are others.
"""

from __future__ import annotations

import ctypes
import os
import sys

_AT_EMPTY_PATH = 0x1000  # linux/fcntl.h
_STATX_BTIME = 0x800  # linux/stat.h: struct statx has 256 bytes, stx_mask at 0 and stx_btime at 80


def of(fd: int) -> str:
    """The inode of an open file and, if the file system has it, its time of birth."""
    inode = os.fstat(fd).st_ino
    statx = getattr(ctypes.CDLL(None), "statx", None)
    buffer = ctypes.create_string_buffer(256)
    if statx is None or statx(fd, b"", _AT_EMPTY_PATH, ctypes.c_uint(_STATX_BTIME), buffer):
        return f"{inode}"
    known = int.from_bytes(buffer.raw[:4], sys.byteorder) & _STATX_BTIME
    return f"{inode} {buffer.raw[80:92].hex()}" if known else f"{inode}"
