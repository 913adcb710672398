#!/usr/bin/env python3
"""Writes the vectors of volume streams: python3 tests/vectors/volumestream/generate.py

`status: 0` vectors say what the plain volume must be (`volume`, its SHA-256) or, for a large one, how many bytes it
has (`size`). The others have the error's `message`.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import vectorfile  # noqa: E402
from vectorfile import Vector  # noqa: E402

A = bytes(range(1, 256)) * 2 + b"AB"
B = A[::-1]

EARLY = "standard input ends too early"
EMPTY = "standard input is empty: did the program before fail?"
BAD = "the volume stream on standard input is malformed: "
NOT = "standard input is not a volume stream"
LONG = "standard input has a line of more than 64 bytes, which is too long"
PAIR = BAD + "a line of the map is not two numbers"


def stream(size: int | str, entries: str, data: bytes, end: str | None = None, count: int | None = None) -> bytes:
    """A volume stream; entries: the lines of its map."""
    count = entries.count("\n") if count is None else count
    end = f"end {len(data)}\n" if end is None else end
    return f"qb-volume 1\nsize {size}\nextents {count}\n{entries}\n".encode() + data + end.encode()


GOOD = stream(4096, "512 512\n2048 512\n", A + B)


def volume(size: int, *parts: tuple[int, bytes]) -> dict[str, str]:
    data = bytearray(size)
    for offset, part in parts:
        data[offset : offset + len(part)] = part
    return {"volume": hashlib.sha256(data).hexdigest()}


def _good() -> dict[str, tuple[bytes, dict[str, str]]]:
    return {
        "empty-volume": (stream(0, "", b""), volume(0)),
        "hole": (stream(65536, "", b""), volume(65536)),
        "whole": (stream(512, "0 512\n", A), volume(512, (0, A))),
        "two": (GOOD, volume(4096, (512, A), (2048, B))),
        "touching": (stream(1024, "0 512\n512 512\n", A + B), volume(1024, (0, A), (512, B))),
        "odd": (stream(3, "0 3\n", b"abc"), volume(3, (0, b"abc"))),
        "odd-end": (stream(1027, "512 515\n", A + b"abc"), volume(1027, (512, A + b"abc"))),
        "odd-hole": (stream(1027, "512 512\n", A), volume(1027, (512, A))),
        "large": (stream((1 << 63) - 1, "0 512\n9223372036854774784 512\n", A + B), {"size": str((1 << 63) - 1)}),
    }


def _bad() -> dict[str, tuple[bytes, str]]:
    def one(line: str) -> bytes:
        return stream(4096, line + "\n", A)

    def top(old: bytes, new: bytes) -> bytes:
        return GOOD.replace(old, new, 1)

    return {
        "cut-empty": (b"", EMPTY),
        "cut-word": (GOOD[:5], EARLY),
        "cut-header": (GOOD[:14], EARLY),
        "cut-map": (GOOD[:40], EARLY),
        "cut-map-line": (GOOD[:45], EARLY),
        "cut-empty-line": (GOOD[: GOOD.index(b"\n\n") + 1], EARLY),
        "cut-data": (GOOD[:600], EARLY),
        "cut-data-end": (GOOD[:-9], "the volume stream on standard input ends without its end line"),
        "cut-end": (GOOD[:-4], "the volume stream on standard input ends without its end line"),
        "cut-newline": (GOOD[:-1], "the volume stream on standard input ends without its end line"),
        "other": (b"\x7fELF" + bytes(60), NOT),
        "other-text": (b"hello\nworld\n", NOT),
        "version-2": (top(b"qb-volume 1", b"qb-volume 2"), NOT),
        "version-01": (top(b"qb-volume 1", b"qb-volume 01"), NOT),
        "crlf": (GOOD.replace(b"\n", b"\r\n", 4), NOT),
        "blank-first": (b"\n" + GOOD, NOT),
        "word-unknown": (top(b"extents", b"base x\nextents"), BAD + "no line `extents NUMBER` where it should be"),
        "word-order": (
            b"qb-volume 1\nextents 0\nsize 0\n\nend 0\n",
            BAD + "no line `size NUMBER` where it should be",
        ),
        "size-missing": (top(b"size 4096\n", b""), BAD + "no line `size NUMBER` where it should be"),
        "size-zeros": (top(b"size 4", b"size 04"), BAD + "no line `size NUMBER` where it should be"),
        "size-sign": (top(b"size 4", b"size +4"), BAD + "no line `size NUMBER` where it should be"),
        "size-negative": (top(b"size 4", b"size -4"), BAD + "no line `size NUMBER` where it should be"),
        "size-letters": (top(b"4096", b"4K"), BAD + "no line `size NUMBER` where it should be"),
        "size-spaces": (top(b"size 4", b"size  4"), BAD + "no line `size NUMBER` where it should be"),
        "size-space-behind": (top(b"4096\n", b"4096 \n"), BAD + "no line `size NUMBER` where it should be"),
        "size-2-63": (top(b"4096", b"9223372036854775808"), BAD + "size is above 9223372036854775807"),
        "size-long": (top(b"4096", b"9" * 80), LONG),
        "extents-too-many": (top(b"extents 2", b"extents 1048577"), BAD + "extents is above 1048576"),
        "extents-2-63": (top(b"extents 2", b"extents 9223372036854775808"), BAD + "extents is above 1048576"),
        "extents-more": (top(b"extents 2", b"extents 3"), PAIR),
        "extents-less": (top(b"extents 2", b"extents 1"), BAD + "no empty line behind the map"),
        "no-empty-line": (top(b"\n\n", b"\n"), BAD + "no empty line behind the map"),
        "pair-one": (one("512"), PAIR),
        "pair-three": (one("0 512 1"), PAIR),
        "pair-tab": (one("0\t512"), PAIR),
        "pair-spaces": (one("0  512"), PAIR),
        "pair-sign": (one("+0 512"), PAIR),
        "pair-negative": (one("-512 512"), PAIR),
        "pair-zeros": (one("00 512"), PAIR),
        "pair-underscore": (one("0 5_12"), PAIR),
        "pair-empty": (one("0 0"), PAIR),
        "pair-huge": (one("0 " + "9" * 30), PAIR),
        "line-long": (one("0 " + "9" * 70), LONG),
        "past-end": (one("3584 1024"), BAD + "an extent passes the end of the volume"),
        "past-64-bit": (one("9999999999999999999 9999999999999999999"), BAD + "an extent passes the end of the volume"),
        "unaligned-offset": (one("100 412"), BAD + "an extent is not aligned at 512 bytes"),
        "unaligned-length": (one("0 100"), BAD + "an extent is not aligned at 512 bytes"),
        "unsorted": (stream(4096, "2048 512\n512 512\n", A + B), BAD + "extents overlap, or are not sorted"),
        "overlap": (stream(4096, "0 1024\n512 512\n", A + B + B), BAD + "extents overlap, or are not sorted"),
        "end-sum": (stream(512, "0 512\n", A, end="end 513\n"), BAD + "no end line where the data ends"),
        "end-zeros": (stream(512, "0 512\n", A, end="end 0512\n"), BAD + "no end line where the data ends"),
        "end-space": (stream(512, "0 512\n", A, end="end 512 \n"), BAD + "no end line where the data ends"),
        "end-word": (stream(512, "0 512\n", A, end="End 512\n"), BAD + "no end line where the data ends"),
        "data-more": (stream(512, "0 512\n", A, end="xend 512\n"), BAD + "no end line where the data ends"),
        "data-much-more": (stream(512, "0 512\n", A, end="x" * 100), BAD + "no end line where the data ends"),
        "data-less": (stream(1024, "0 1024\n", A), EARLY),
        "behind-end": (GOOD + b"x", BAD + "bytes follow the end line"),
        "behind-end-stream": (GOOD + GOOD, BAD + "bytes follow the end line"),
    }


def vectors() -> dict[str, Vector]:
    """All vectors by name."""
    found: dict[str, Vector] = {}
    for key, (data, said) in _good().items():
        found[key] = ({"about": key.replace("-", " "), "status": "0", **said}, data)
    for key, (data, text) in _bad().items():
        found[key] = ({"about": key.replace("-", " "), "status": "4", "message": text}, data)
    return found


if __name__ == "__main__":
    vectorfile.write_all(HERE, vectors())
