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
NO_SIZE = BAD + "no line `size NUMBER` where it should be"
PAIR = BAD + "a line of the map is not two numbers"


def stream(size: int | str, entries: str, data: bytes, end: str | None = None, count: int | None = None) -> bytes:
    """A volume stream; entries: the lines of its map."""
    count = entries.count("\n") if count is None else count
    end = f"end {len(data)}\n" if end is None else end
    return f"qb-volume 1\nsize {size}\nextents {count}\n{entries}\n".encode() + data + end.encode()


def increment(size: int | str, entries: str, *records: tuple[str, bytes], end: str | None = None) -> bytes:
    """An increment; records: their lines, without newline, each with its data."""
    head = f"qb-volume 2\nsize {size}\nbase {BASE}\nextents {entries.count(chr(10))}\n{entries}\n".encode()
    body = b"".join(line.encode() + b"\n" + data for line, data in records)
    total = sum(len(data) for _, data in records)
    return head + body + (f"end {total}\n" if end is None else end).encode()


BASE = f"20261124T055255-0123456789abcdef {'0123456789abcdef' * 4}"
CHANGED = increment(4096, "512 512\n2048 512\n", ("zero 0 512", b""), ("data 512 512", A), ("data 2048 512", B))
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
        "increment": (CHANGED, {"size": "4096"}),
        "increment-none": (increment(65536, "0 65536\n"), {"size": "65536"}),
        "increment-empty": (increment(0, ""), {"size": "0"}),
        "increment-zeros": (increment(8 << 40, "", (f"zero 0 {8 << 40}", b"")), {"size": str(8 << 40)}),
        "increment-touching": (
            increment(1536, "0 512\n512 512\n", ("data 0 512", A), ("data 512 512", B), ("zero 1024 512", b"")),
            {"size": "1536"},
        ),
        "increment-part": (increment(4096, "0 4096\n", ("data 512 512", A), ("zero 1024 512", b"")), {"size": "4096"}),
        "increment-over-two": (increment(1024, "0 512\n512 512\n", ("data 0 1024", A + B)), {"size": "1024"}),
        "increment-odd": (increment(515, "0 515\n", ("data 512 3", b"abc")), {"size": "515"}),
        "increment-odd-zeros": (increment(515, "", ("zero 512 3", b"")), {"size": "515"}),
        "increment-zeros-anywhere": (increment(1024, "0 1024\n", ("zero 515 509", b"")), {"size": "1024"}),
        "increment-short-id": (CHANGED.replace(b"20261124T055255-0123456789abcdef", b"x"), {"size": "4096"}),
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
        "version-2": (top(b"qb-volume 1", b"qb-volume 2"), BAD + "no line `base ID SHA256` where it should be"),
        "version-3": (top(b"qb-volume 1", b"qb-volume 3"), NOT),
        "version-20": (top(b"qb-volume 1", b"qb-volume 20"), NOT),
        "version-01": (top(b"qb-volume 1", b"qb-volume 01"), NOT),
        "crlf": (GOOD.replace(b"\n", b"\r\n", 4), NOT),
        "blank-first": (b"\n" + GOOD, NOT),
        "word-unknown": (top(b"extents", b"base x\nextents"), BAD + "no line `extents NUMBER` where it should be"),
        "word-order": (
            b"qb-volume 1\nextents 0\nsize 0\n\nend 0\n",
            NO_SIZE,
        ),
        "size-missing": (top(b"size 4096\n", b""), NO_SIZE),
        "size-zeros": (top(b"size 4", b"size 04"), NO_SIZE),
        "size-sign": (top(b"size 4", b"size +4"), NO_SIZE),
        "size-negative": (top(b"size 4", b"size -4"), NO_SIZE),
        "size-letters": (top(b"4096", b"4K"), NO_SIZE),
        "size-spaces": (top(b"size 4", b"size  4"), NO_SIZE),
        "size-space-behind": (top(b"4096\n", b"4096 \n"), NO_SIZE),
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
        **_bad_increments(),
        "behind-end": (GOOD + b"x", BAD + "bytes follow the end line"),
        "behind-end-stream": (GOOD + GOOD, BAD + "bytes follow the end line"),
    }


def _bad_increments() -> dict[str, tuple[bytes, str]]:
    def one(line: str, data: bytes = A, end: str | None = None) -> bytes:
        return increment(4096, "512 1024\n2048 512\n", (line, data), end=end)

    def top(old: bytes, new: bytes) -> bytes:
        return CHANGED.replace(old, new, 1)

    base = BAD + "no line `base ID SHA256` where it should be"
    end = BAD + "no end line where the data ends"
    pair = BAD + "a record does not begin with two numbers"
    order = BAD + "records overlap, or are not sorted"
    outside = BAD + "a data record is not inside the map"
    aligned = BAD + "a record is not aligned at 512 bytes"
    past = BAD + "a record passes the end of the volume"
    early = "the volume stream on standard input ends without its end line"
    id_, digest = BASE.encode().split()
    bad = {
        "cut-header": (CHANGED[:60], EARLY),
        "cut-line": (CHANGED[: CHANGED.index(b"data") + 7], early),
        "cut-data": (CHANGED[:-300], EARLY),
        "cut-end": (CHANGED[:-9], early),
        "cut-newline": (CHANGED[:-1], early),
        "base-missing": (top(b"base " + BASE.encode() + b"\n", b""), base),
        "base-first": (top(b"size 4096\nbase " + BASE.encode(), b"base " + BASE.encode() + b"\nsize 4096"), LONG),
        "base-no-digest": (top(b" " + digest, b""), base),
        "base-short": (top(digest, digest[1:]), base),
        "base-upper": (top(digest, digest.upper()), base),
        "base-no-id": (top(id_, b""), base),
        "base-hyphen": (top(id_, b"-x"), base),
        "base-slash": (top(id_, b"../x"), base),
        "base-not-ascii": (top(id_, b"\xc3\xa9"), base),
        "base-id-long": (top(id_, b"x" * 129), base),
        "base-long": (top(id_, b"x" * 300), LONG.replace("64", "256")),
        "base-twice": (
            top(b"extents", b"base " + BASE.encode() + b"\nextents"),
            LONG,
        ),
        "map-unsorted": (top(b"512 512\n2048 512", b"2048 512\n512 512"), BAD + "extents overlap, or are not sorted"),
        "word": (one("hole 512 512"), end),
        "word-upper": (one("Data 512 512"), end),
        "one-number": (one("data 512"), pair),
        "three-numbers": (one("data 512 512 1"), pair),
        "no-number": (one("zero", b""), pair),
        "spaces": (one("data  512 512"), pair),
        "zeros": (one("data 0512 512"), pair),
        "negative": (one("data -512 512"), pair),
        "line-long": (one("data 512 " + "9" * 70), pair),
        "empty": (one("data 512 0", b""), BAD + "a record is empty"),
        "empty-zero": (one("zero 512 0", b""), BAD + "a record is empty"),
        "past-end": (one("zero 3584 1024", b""), past),
        "past-64-bit": (one("zero 9999999999999999999 9999999999999999999", b""), past),
        "unaligned": (one("data 600 512"), aligned),
        "unaligned-length": (one("data 512 500"), aligned),
        "unaligned-zero": (one("zero 512 500", b""), aligned),
        "outside": (one("data 0 512"), outside),
        "outside-behind": (one("data 1024 1024", A + B), outside),
        "outside-between": (one("data 512 2048", A * 4), outside),
        "outside-last": (one("data 2560 512"), outside),
        "too-long": (
            increment(1 << 30, f"0 {1 << 30}\n", (f"data 0 {(16 << 20) + 512}", A)),
            BAD + "a data record has more than 16777216 bytes",
        ),
        "unsorted": (increment(4096, "0 4096\n", ("data 512 512", A), ("zero 0 512", b"")), order),
        "overlap": (increment(4096, "0 4096\n", ("zero 0 1024", b""), ("data 512 512", A)), order),
        "twice": (increment(4096, "0 4096\n", ("data 512 512", A), ("data 512 512", A)), order),
        "end-sum": (one("data 512 512", end="end 513\n"), end),
        "end-zeros-counted": (one("zero 0 512", b"", end="end 512\n"), end),
        "end-map": (one("data 512 512", end="end 1536\n"), end),
        "data-more": (one("data 512 512", A + b"x", end="end 512\n"), end),
        "behind-end": (CHANGED + b"x", BAD + "bytes follow the end line"),
        "behind-end-stream": (CHANGED + CHANGED, BAD + "bytes follow the end line"),
    }
    return {f"increment-{name}": vector for name, vector in bad.items()}


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
