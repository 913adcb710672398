"""One tar header, 512 bytes. Both the inner and the outer archive consist of such headers and data.

    offset length
         0    100  name
       100      8  mode, uid, gid: 8 each
       124     12  size
       136     12  mtime
       148      8  checksum: the sum of all bytes of the header, with these eight counted as spaces
       156      1  typeflag
       157    100  link name
       257      8  "ustar\\0" "00"; GNU tar's own format has "ustar  \\0", and no prefix
       265     80  user name, group name (32 each), device numbers (8 each)
       345    155  prefix: the directory, if the name is longer than 100 bytes

Numbers are octal digits, ended by NUL or space. If they do not suffice, GNU tar sets the first bit and writes binary.
"""

from __future__ import annotations

from qbtools.errors import Damaged
from qbtools.lean import NamedTuple

BLOCK = 512
END_OF_ARCHIVE = bytes(2 * BLOCK)

MAX_OCTAL_SIZE = 8**11 - 1
"""Largest size that fits in octal digits. A larger size is in a pax record."""

MAX_NUMBER = (1 << 63) - 1
"""Largest number that is read."""

KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a directory",
    b"6": "a fifo",
    b"g": "a pax global header",
}
"""The meanings of typeflags other than those of regular files."""

_MODE = b"0000600\0"
_NONE = b"0000000\0"  # uid, gid, device numbers
_MAGIC = b"ustar\x0000"
_SPACES = 8 * 0x20


class Header(NamedTuple):
    """The values of a header. Only the checksum has been checked."""

    untrusted_name: bytes
    untrusted_size: int
    typeflag: bytes
    block: bytes

    @property
    def untrusted_target(self) -> bytes:
        """The target of a link."""
        return _text(self.block[157:257])


def padding(size: int) -> int:
    """Bytes between the end of size bytes and the next block."""
    return -size % BLOCK


def build(name: str, size: int, typeflag: bytes = b"0", mtime: int = 0) -> bytes:
    """A ustar header with mode 0600, owner 0 and no user name.

    name: ASCII. If it has more than 100 bytes, its directory must fit in 155 bytes and its last component in 100.
    ValueError if it does not fit. size: bytes of the body. It is written as 0 if it is above MAX_OCTAL_SIZE: the caller
    has written it in a pax record. mtime: seconds since 1970. Octal digits hold the years 1970 to 2242; any other time,
    from a wrong clock, is replaced by the nearest of these.
    """
    base, prefix = name.encode("ascii"), b""
    if len(base) > 100:
        prefix, _, base = base.rpartition(b"/")
    if not 0 < len(base) <= 100 or len(prefix) > 155:
        raise ValueError(f"the name does not fit in a tar header: {name}")
    mtime = min(max(mtime, 0), MAX_OCTAL_SIZE)
    head = base.ljust(100, b"\0") + _MODE + _NONE + _NONE
    head += b"%011o\0%011o\0" % (size if size <= MAX_OCTAL_SIZE else 0, mtime)
    tail = typeflag + bytes(100) + _MAGIC + bytes(64) + _NONE + _NONE
    tail += prefix.ljust(167, b"\0")
    return head + b"%06o\0 " % (sum(head) + _SPACES + sum(tail)) + tail


def parse(block: bytes) -> Header:
    """Reads one header, in ustar, in GNU tar's own format, or in the older one. Damaged if it is none of them."""
    untrusted_sum = number(block[148:156])
    if untrusted_sum != sum(block) - sum(block[148:156]) + _SPACES:
        raise Damaged("a tar header has a wrong checksum")
    magic = block[257:265]
    if magic not in (_MAGIC, b"ustar  \0", bytes(8)):
        raise Damaged("a tar header is of an unknown kind")
    name = _text(block[:100])
    if magic == _MAGIC and block[345]:
        name = _text(block[345:500]) + b"/" + name
    return Header(name, number(block[124:136]), block[156:157], block)


def is_header(block: bytes) -> bool:
    """Whether parse() accepts a block, of any size."""
    try:
        parse(block)
    except (Damaged, IndexError):
        return False
    return True


def number(field: bytes) -> int:
    """A number of a header, 0 … MAX_NUMBER. Damaged if it is malformed or out of bounds."""
    if field[0] == 0x80:
        value = int.from_bytes(field[1:], "big")
        if value <= MAX_NUMBER:
            return value
        raise Damaged("a number in a tar header is too large")
    digits = field.rstrip(b" \0").lstrip(b" ")
    try:
        if digits.isdigit():
            return int(digits, 8)
    except ValueError:
        pass
    raise Damaged("a number in a tar header is malformed")


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]
