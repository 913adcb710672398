#!/usr/bin/env python3
"""Writes the vectors of inner archives: python3 tests/vectors/inner/generate.py

`status: 0` vectors say what must come out: `volume` (SHA-256 of the plain volume), `size` (what --size prints),
`list` (what --list prints, `|` for newline and `>` for tab). The others have the error's `message`. `name` is the
argument NAME.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import vectorfile  # noqa: E402
from tarbytes import (  # noqa: E402
    END,
    GNU,
    NAME,
    NO_MAGIC,
    binary,
    extended,
    head,
    map_text,
    old,
    pad,
    pax,
    regular,
    sparse,
    sparse_head,
)
from vectorfile import Vector  # noqa: E402

A = bytes(range(1, 256)) * 2 + b"AB"  # a block of data
B = A[::-1]
OFFSETS = [(512, 512), (2048, 512), (4096, 0)]  # A and B in a volume of 4096 bytes
DEEP = b"d" * 120 + b"/" + b"b" * 88
THREE = regular(A, b"vm1/other") + sparse(4096, OFFSETS, A + B) + regular(B, b"vm2/x")
# 3 + 31 * 14 + 5 * 15 bytes: no padding needed.
FULL_MAP = [(10**8 + 512 * at, 512) for at in range(31)] + [(512 * 10**7 + 512 * at, 512) for at in range(5)]

EARLY = "standard input ends too early"
MAP = "the sparse map of vm1/private.img is malformed: "
MISFIT = "the sparse map of vm1/private.img does not fit the size of its data"
TAIL = "something follows the end of the archive"
NUMBER = "a number in a tar header is malformed"


def plain(size: int, *parts: tuple[int, bytes]) -> str:
    """SHA-256 of a volume that holds parts at their offsets."""
    data = bytearray(size)
    for offset, part in parts:
        data[offset : offset + len(part)] = part
    return hashlib.sha256(data).hexdigest()


def _one(size: int, volume: str, name: bytes = NAME) -> dict[str, str]:
    return {"volume": volume, "size": str(size), "list": f"{size}>{name.decode()}|"}


def _regular() -> dict[str, tuple[str, bytes, dict[str, str]]]:
    """Good archives of regular members."""
    said = _one(512, plain(512, (0, A)))
    deep = _one(512, plain(512, (0, A)), DEEP)
    long_name = extended(DEEP + b"\0", b"L")
    return {
        "regular": ("ustar", regular(A) + END, said),
        "regular-v7": ("type NUL, no magic", regular(A, kind=b"\0", magic=NO_MAGIC) + END, said),
        "regular-gnu": ("the magic of GNU tar", regular(A, magic=GNU) + END, said),
        "regular-gnu-times": (
            "times where ustar has the prefix",
            regular(A, magic=GNU, more=b"15301223360\0" * 2) + END,
            said,
        ),
        "regular-record": ("zeros up to 10240 bytes", (regular(A) + END).ljust(10240, b"\0"), said),
        "size-binary": ("a binary size", head(size=binary(512)) + A + END, said),
        "size-spaces": ("spaces around the size", head(size=b"      1000 \0") + A + END, said),
        "pax-size": ("the size is that of the pax record", pax(("size", 512)) + head() + A + END, said),
        "pax-path": ("the name is that of the pax record", pax(("path", NAME.decode())) + regular(A, b"x") + END, said),
        "pax-path-empty": ("an empty record is none", pax(("path", "")) + regular(A) + END, said),
        "pax-unknown": ("records that nobody knows", pax(("mtime", "1.5"), ("X.y", "=")) + regular(A) + END, said),
        "pax-global": ("a global pax header", pax(("comment", "x"), kind=b"g") + regular(A) + END, said),
        "pax-twice": (
            "the last of two records counts",
            pax(("path", "x"), ("path", NAME.decode())) + regular(A) + END,
            said,
        ),
        "empty-volume": ("an empty volume", regular(b"") + END, _one(0, plain(0))),
        "odd": ("a volume of odd length", regular(b"abc") + END, _one(3, plain(3, (0, b"abc")))),
        "prefix": ("a name in two fields", regular(A, b"b" * 88, more=b"d" * 120) + END, deep),
        "long-name": ("a long name of GNU tar", long_name + regular(A, b"d" * 100) + END, deep),
        "long-link": ("a long link name, not used", extended(b"xy\0", b"K") + regular(A) + END, said),
        "named-first": ("the first of three", THREE + END, {"name": "vm1/other", "volume": said["volume"]}),
        "named-last": ("the last of three", THREE + END, {"name": "vm2/x", "volume": plain(512, (0, B))}),
        "named-size": ("the size of one of three", THREE + END, {"name": "vm2/x", "size": "512", "list": "512>vm2/x|"}),
    }


def _sparse() -> dict[str, tuple[str, bytes, dict[str, str]]]:
    """Good archives of sparse members."""
    said = _one(4096, plain(4096, (512, A), (2048, B)))
    six, thirty = ([(1024 * at, 512) for at in range(count)] for count in (6, 30))
    large = {"size": str(1 << 40), "list": f"{1 << 40}>vm1/private.img|"}
    full = sparse(512 * 10**7 + 512 * 5, FULL_MAP, A * 36)
    odd = sparse(1027, [(512, 515)], A + b"abc")
    tree = head(b"home/", kind=b"5") + head(b"home/l\n", kind=b"2") + regular(b"abc", b"home/\xff\x1b[2J")
    listed = "0>home/|0>home/l\\n>a symbolic link|3>home/\\udcff\\x1b[2J|"
    return {
        "sparse": ("pax sparse 1.0", sparse(4096, OFFSETS, A + B) + END, said),
        "sparse-no-last": ("no entry at the end", sparse(4096, OFFSETS[:2], A + B) + END, said),
        "sparse-empty-entry": (
            "an empty entry in the middle",
            sparse(4096, [OFFSETS[0], (1024, 0), OFFSETS[1]], A + B) + END,
            said,
        ),
        "sparse-touching": (
            "extents that touch",
            sparse(1024, [(0, 512), (512, 512)], A + B) + END,
            _one(1024, plain(1024, (0, A), (512, B))),
        ),
        "sparse-hole": (
            "nothing but a hole",
            sparse(9 << 16, [(9 << 16, 0)], b"") + END,
            _one(9 << 16, plain(9 << 16)),
        ),
        "sparse-no-entry": ("a map without entries", sparse(9 << 16, [], b"") + END, _one(9 << 16, plain(9 << 16))),
        "sparse-empty": ("an empty volume, as Qubes writes it", sparse(0, [(0, 0)], b"") + END, _one(0, plain(0))),
        "sparse-odd": ("a volume of odd length", odd + END, _one(1027, plain(1027, (512, A + b"abc")))),
        "sparse-unpadded": (
            "a body that is not padded, as Qubes writes it",
            odd[: -(-515 % 512)] + END,
            _one(1027, plain(1027, (512, A + b"abc"))),
        ),
        "sparse-full-map": ("a map of exactly 512 bytes", full + END, {"size": "5120002560"}),
        "sparse-tib": ("1 TiB with a block of data", sparse(1 << 40, [((1 << 40) - 512, 512)], A) + END, large),
        "old": ("GNU tar's old format", old(4096, OFFSETS, A + B) + END, said),
        "old-6": (
            "entries in one more block",
            old(6144, six, A * 6) + END,
            _one(6144, plain(6144, *((offset, A) for offset, _ in six))),
        ),
        "old-30": (
            "entries in two more blocks",
            old(30720, thirty, A * 30) + END,
            _one(30720, plain(30720, *((offset, A) for offset, _ in thirty))),
        ),
        "old-binary": ("numbers octal and binary", old(1 << 40, [(0, 512), (1 << 39, 512)], A + B) + END, large),
        "old-hole": ("no entry at all", old(9 << 16, [], b"") + END, _one(9 << 16, plain(9 << 16))),
        "named-sparse": ("the sparse one of three", THREE + END, {"name": NAME.decode(), "volume": said["volume"]}),
        "tree": ("members of any kind, hostile names", tree + END, {"list": listed}),
        "many": ("several members", THREE + END, {"list": "512>vm1/other|4096>vm1/private.img|512>vm2/x|"}),
    }


def _cut() -> dict[str, tuple[str, bytes, str]]:
    """Archives that end too early, or not where they should."""
    good = sparse(4096, OFFSETS, A + B)
    return {
        "cut-empty": ("nothing", b"", "standard input is empty: did the program before fail?"),
        "cut-pax-header": ("inside the header of the pax header", good[:511], EARLY),
        "cut-pax-body": ("inside the pax records", good[:600], EARLY),
        "cut-pax-padding": ("in the padding of the pax header", good[:1000], EARLY),
        "cut-header": ("behind the pax header", good[:1024], EARLY),
        "cut-map": ("inside the map", good[:1540], EARLY),
        "cut-map-padding": ("in the padding of the map", good[:1600], EARLY),
        "cut-data": ("inside the data", good[:2600], EARLY),
        "cut-data-end": ("where the data ends", good, EARLY),
        "cut-padding": ("in the padding of the data", regular(b"abc")[:515], EARLY),
        "cut-end": ("one end block", good + bytes(512), EARLY),
        "cut-end-byte": ("one byte short", good + bytes(1023), EARLY),
        "cut-old-map": (
            "inside the blocks of an old map",
            old(30720, [(1024 * at, 512) for at in range(30)], b"")[:900],
            EARLY,
        ),
        "behind-end": ("bytes behind the end", good + END + b"x", TAIL),
        "behind-end-far": ("bytes behind a record of zeros", (good + END).ljust(10240, b"\0") + b"x", TAIL),
        "behind-end-archive": ("a second archive", good + END + good + END, TAIL),
        "behind-zero-block": ("a member behind one zero block", good + bytes(512) + good + END, TAIL),
        "padding-data": (
            "padding of the data",
            regular(b"abc")[:-1] + b"x" + END,
            "the data is padded with something other than zeros",
        ),
        "padding-map": (
            "padding of the map",
            sparse(4096, pad(map_text(OFFSETS))[:-1] + b"x", A + B) + END,
            "the sparse map is padded with something other than zeros",
        ),
        "padding-pax": (
            "padding of the pax header",
            good[:1023] + b"x" + good[1024:] + END,
            "a pax header is padded with something other than zeros",
        ),
        "zeros-only": ("no member", END, "the archive has no member"),
        "header-last": (
            "a pax header without its member",
            pax(("path", "x")) + END,
            "the archive ends after a header that needs a member",
        ),
        "long-name-last": (
            "a long name without its member",
            extended(b"x", b"L") + END,
            "the archive ends after a header that needs a member",
        ),
    }


def _headers() -> dict[str, tuple[str, bytes, str]]:
    """Headers that are wrong."""
    kinds = {"1": "a hard link", "2": "a symbolic link", "3": "a character device", "4": "a block device"}
    kinds |= {"5": "a directory", "6": "a fifo"}
    found = {
        f"type-{kind}": (what, head(kind=kind.encode()) + END, f"vm1/private.img is {what}, not a regular file")
        for kind, what in kinds.items()
    }
    for kind in "7DMNVXAa\xff":
        text = f"vm1/private.img is of a type that is not read: {kind}"
        found[f"type-{ord(kind):02x}"] = (f"type {kind!r}", regular(A, kind=kind.encode("latin-1")) + END, text)
    sizes = {
        "octal": (b"00000000009\0", NUMBER),
        "letters": (b"0x200\0\0\0\0\0\0\0", NUMBER),
        "nothing": (bytes(12), NUMBER),
        "sign": (b"-0000001000\0", NUMBER),
        "inner-space": (b"0000 001000\0", NUMBER),
        "negative": (b"\xff" * 12, NUMBER),
        "binary-large": (binary(1 << 63), "a number in a tar header is too large"),
        "binary-huge": (b"\x80" + b"\xff" * 11, "a number in a tar header is too large"),
    }
    for key, (field, text) in sizes.items():
        found[f"size-{key}"] = (f"a size of {field!r}", head(size=field) + A + END, text)
    found |= {
        "size-bomb": ("8 EiB of data announced", head(size=binary((1 << 63) - 512)) + A + END, EARLY),
        "checksum": ("a wrong checksum", head(size=512, off=1) + A + END, "a tar header has a wrong checksum"),
        "checksum-letters": (
            "no number as checksum",
            (good := head(size=512))[:148] + b"zzzzzz\0 " + good[156:] + A + END,
            NUMBER,
        ),
        "magic": ("an unknown magic", regular(A, magic=b"ustar\x0001") + END, "a tar header is of an unknown kind"),
        "compressed": ("a gzip file", b"\x1f\x8b\x08\0" + bytes(508), "standard input is gzip data, not a tar archive"),
        "slash": (
            "a regular file whose name ends with a slash",
            regular(b"", NAME + b"/") + END,
            "vm1/private.img/ is a directory, not a regular file",
        ),
        "bare-data": (
            "a link with data",
            regular(A, kind=b"2") + END,
            "vm1/private.img is a symbolic link, but has data",
        ),
        "no-name": ("no name", regular(A, b"") + END, "a member has no name, or one with a NUL byte"),
        "nul-name": (
            "a NUL byte in the name",
            pax(("path", "a\0b")) + regular(A) + END,
            "a member has no name, or one with a NUL byte",
        ),
        "two-members": ("two members, no NAME", THREE + END, "the archive holds more than one member"),
        "two-members-dir": (
            "a directory as second member",
            regular(A) + head(b"d/", kind=b"5") + END,
            "the archive holds more than one member",
        ),
    }
    return found


def _extended() -> dict[str, tuple[str, bytes, str]]:
    """Pax headers and long names that are wrong."""
    broken = {
        "length-0": b"0 path=x\n",
        "length-sign": b"+9 path=x\n",
        "length-short": b"8 path=x\n\n",
        "length-long": b"99 path=x\n",
        "length-huge": b"99999999999999999999999999 path=x\n",
        "length-inside": b"2 path=x\n",
        "no-space": b"9path=x\n",
        "no-equals": b"7 path\n",
        "no-newline": b"9 path=xy",
        "nul": b"9 path=x\n\0",
    }
    found = {}
    for key, body in broken.items():
        no_length = key in ("length-0", "length-sign", "length-huge", "no-space", "nul")
        text = "a pax record has no length" if no_length else "a pax record is malformed"
        found[f"pax-{key}"] = (f"pax records {body[:12]!r}", extended(body) + regular(A) + END, text)
    for value in ("-1", "0x10", "1e3", " 1", "", "9223372036854775808", "9" * 40):
        key = f"pax-real-{value[:20].strip() or 'none'}"
        text = "the pax record GNU.sparse.realsize of vm1/private.img is malformed or missing"
        found[key] = (f"a real size of {value!r}", sparse(value, OFFSETS, A + B) + END, text)
    found |= {
        "pax-size-huge": (
            "a size past 2^63",
            pax(("size", 1 << 63)) + head() + A + END,
            "the pax record size of vm1/private.img is malformed or missing",
        ),
        "pax-too-long": (
            "a pax header of 10 GiB",
            head(size=binary(10 << 30), kind=b"x") + A,
            "a pax header of 10737418240 bytes is too long",
        ),
        "pax-global-too-long": (
            "a global pax header of 1 MiB and a byte",
            head(size=(1 << 20) + 1, kind=b"g") + A,
            "a global pax header of 1048577 bytes is too long",
        ),
        "long-name-too-long": (
            "a long name of 10 GB",
            head(b"././@LongLink", binary(10**10), b"L", GNU) + A,
            "a long name header of 10000000000 bytes is too long",
        ),
        "long-link-too-long": (
            "a long link of 10 GB",
            head(b"././@LongLink", binary(10**10), b"K", GNU) + A,
            "a long link header of 10000000000 bytes is too long",
        ),
    }
    return found


def _maps() -> dict[str, tuple[str, bytes, str]]:
    """Sparse maps that are wrong, in format 1.0 and in the old one."""
    maps = {
        "overlap": ([(0, 1024), (512, 512)], "extents overlap, or are not sorted"),
        "same": ([(0, 512), (0, 512)], "extents overlap, or are not sorted"),
        "unsorted": ([(1024, 512), (0, 512)], "extents overlap, or are not sorted"),
        "past-end": ([(3584, 1024)], "an extent passes the end of the volume"),
        "beyond-end": ([(8192, 512)], "an extent passes the end of the volume"),
        "huge": ([(0, (1 << 63) - 512)], "an extent passes the end of the volume"),
        "offset-unaligned": ([(100, 412)], "an extent is not aligned at 512 bytes"),
        "length-unaligned": ([(0, 100), (512, 512)], "an extent is not aligned at 512 bytes"),
        "empty-beyond": ([(0, 512), (8192, 0)], "an empty extent is out of place"),
        "empty-inside": ([(0, 1024), (512, 0)], "an empty extent is out of place"),
    }
    found = {}
    for key, (entries, text) in maps.items():
        data = A * (sum(length for _, length in entries) // 512 % 9)
        found[f"map-{key}"] = (f"{key}: {entries}", sparse(4096, entries, data) + END, MAP + text)
        found[f"old-{key}"] = (f"{key}: {entries}", old(4096, entries, data) + END, MAP + text)
    lines = {
        "letters": b"x\n0\n512\n",
        "negative": b"1\n-512\n512\n",
        "sign": b"1\n+0\n512\n",
        "underscore": b"1\n0\n5_12\n",
        "space": b"1\n 0\n512\n",
        "crlf": b"1\r\n0\r\n512\r\n",
        "empty-line": b"1\n\n512\n",
    }
    for key, text in lines.items():
        found[f"map-{key}"] = (
            f"a map that begins {text[:8]!r}",
            sparse(4096, text, A) + END,
            MAP + "a line is not a number",
        )
    long_line = "standard input has a line of more than 32 bytes, which is too long"
    found |= {
        "map-too-few": ("more entries announced than there are", sparse(4096, b"3\n0\n512\n", A) + END, long_line),
        "map-no-newline": ("a map without end", sparse(4096, b"1\n0\n512", A) + END, long_line),
        "map-line-long": ("a number of a million digits", sparse_head(1 << 20, 4096) + b"9" * 5000, long_line),
        "map-number-long": (
            "numbers of 30 digits",
            sparse(4096, b"1\n0\n" + b"9" * 30 + b"\n", A) + END,
            MAP + "an extent passes the end of the volume",
        ),
        "map-into-data": (
            "a map longer than its member",
            sparse_head(512, 4096) + pad(b"90\n" + b"4096\n0\n" * 90) + END,
            MISFIT,
        ),
        "map-size-less": ("a size less than the map's", sparse(4096, OFFSETS, A + B, extra=-512) + END, MISFIT),
        "map-size-more": ("a size above the map's", sparse(4096, OFFSETS, A + B + A) + END, MISFIT),
        "map-size-byte": ("a size one byte above the map's", sparse(4096, OFFSETS, A + B, extra=1) + END, MISFIT),
        "map-on-nothing": ("a sparse member without a body", sparse_head(0, 4096) + END, long_line),
        "old-size-less": ("a size less than the map's", old(4096, OFFSETS, A + B, extra=-512) + END, MISFIT),
        "old-size-more": ("a size above the map's", old(4096, OFFSETS, A + B, extra=512) + END, MISFIT),
        "old-real-size": (
            "a real size below the map's",
            old(1024, OFFSETS, A + B) + END,
            MAP + "an extent passes the end of the volume",
        ),
        "old-real-malformed": ("no number as real size", old(b"x" * 12, OFFSETS, A + B) + END, NUMBER),
        "old-number": ("no number in an entry", old(4096, b"z" * 24, A) + END, NUMBER),
        "old-endless": (
            "a block announced behind the end of the map",
            old(4096, OFFSETS[:2], A + B, endless=True) + END,
            MAP + "it continues after its end",
        ),
        "old-and-pax": (
            "two maps",
            pax(("GNU.sparse.realsize", 4096)) + old(4096, OFFSETS, A + B) + END,
            "vm1/private.img has two sparse maps",
        ),
    }
    version = "vm1/private.img is in a sparse format that is not read"
    body = pad(map_text(OFFSETS)) + A + B
    for major, minor in ((0, 0), (0, 1), (1, 1), (2, 0)):
        data = sparse_head(len(body), 4096, major, minor) + body
        found[f"version-{major}.{minor}"] = (f"sparse format {major}.{minor}", data + END, version)
    older = ": GNU tar's 0.0 or 0.1"
    zero = (
        ("GNU.sparse.size", 4096),
        ("GNU.sparse.numblocks", 1),
        ("GNU.sparse.offset", 0),
        ("GNU.sparse.numbytes", 512),
    )
    one = (("GNU.sparse.size", 4096), ("GNU.sparse.numblocks", 1), ("GNU.sparse.map", "0,512"))
    found["version-0.0-map"] = ("format 0.0 as GNU tar writes it", pax(*zero) + regular(A) + END, version + older)
    found["version-0.1-map"] = ("format 0.1 as GNU tar writes it", pax(*one) + regular(A) + END, version + older)
    return found


def _refused() -> dict[str, tuple[str, bytes, str]]:
    """Maps with more extents than are kept."""
    text = "the sparse map of vm1/private.img has more than 1048576 extents"
    return {
        f"refused-{count}": (
            f"{count} entries",
            sparse_head(1 << 32, 1 << 62) + b"%d\n" % count + b"0\n0\n" * 900,
            text,
        )
        for count in (1048578, 1 << 63)
    }


def _named() -> dict[str, Vector]:
    """What is wrong with a member that was asked for."""
    texts = {
        "missing": ("vm1/root.img", THREE, "the archive has no member vm1/root.img"),
        "other-spelling": ("./vm2/x", THREE, "the archive has no member ./vm2/x"),
        "twice": ("vm2/x", THREE + regular(A, b"vm2/x"), "vm2/x occurs twice"),
        "link": ("vm1/private.img", head(kind=b"2"), "vm1/private.img is a symbolic link, not a regular file"),
        "others-bad": ("vm2/x", THREE + sparse(0, OFFSETS, A), MAP + "an extent passes the end of the volume"),
    }
    return {
        f"named-{key}": ({"about": key, "name": name, "status": "4", "message": text}, data + END)
        for key, (name, data, text) in texts.items()
    }


def vectors() -> dict[str, Vector]:
    """All vectors by name."""
    found: dict[str, Vector] = {}
    for key, (about, data, said) in {**_regular(), **_sparse()}.items():
        found[key] = ({"about": about, "status": "0", **said}, data)
    for key, (about, data, text) in {**_cut(), **_headers(), **_extended(), **_maps()}.items():
        found[key] = ({"about": about, "status": "4", "message": text}, data)
    for key, (about, data, text) in _refused().items():
        found[key] = ({"about": about, "status": "5", "message": text}, data)
    return {**found, **_named()}


if __name__ == "__main__":
    vectorfile.write_all(HERE, vectors())
