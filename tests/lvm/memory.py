"""The memory of a process after a fork: all of it at once, instead of page by page.

In user-mode Linux a page that a process touches for the first time after a fork takes long. And the more pieces its
memory has there, the longer takes each fork, and each program that it starts.
"""

from __future__ import annotations

import ctypes
import mmap
import re
from pathlib import Path

_POPULATE_READ, _POPULATE_WRITE = 22, 23
_MAPPING = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) (r[w-][x-])p .*$", re.MULTILINE)
_libc = ctypes.CDLL(None)
_libc.malloc.restype = ctypes.c_void_p
_SPARE = ctypes.c_size_t(48 << 20)


def own() -> None:
    """Gives this process a page of its own wherever it can write, one beside the other, and maps all of its pages.

    Some to spare are among them, for the data of tests: tests/lvm/enter has a process keep the memory that it frees.
    The kernel maps pages together when their protection changes, so for a moment more is allowed.
    """
    _libc.free(ctypes.c_void_p(_libc.malloc(_SPARE)))
    with Path("/proc/self/maps").open("rb", buffering=0) as file:
        text = file.read()
    for found in _MAPPING.finditer(text):
        if b"[v" in found[0]:  # those that the kernel has made for itself
            continue
        start, end = int(found[1], 16), int(found[2], 16)
        writable = b"w" in found[3]
        protection = mmap.PROT_READ | mmap.PROT_WRITE * writable | mmap.PROT_EXEC * (b"x" in found[3])
        more = protection | (mmap.PROT_EXEC if writable else mmap.PROT_WRITE)
        place, size = ctypes.c_void_p(start), ctypes.c_size_t(end - start)
        _libc.madvise(place, size, _POPULATE_WRITE if writable else _POPULATE_READ)
        _libc.mprotect(place, size, more)
        _libc.mprotect(place, size, protection)
