"""Tar archives put together from bytes, on purpose without the code that is tested with them."""

from __future__ import annotations

NAME = b"vm1/private.img"
END = bytes(1024)
USTAR = b"ustar\x0000"
GNU = b"ustar  \0"
NO_MAGIC = bytes(8)

Entries = list[tuple[int, int]]


def pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def octal(value: int) -> bytes:
    return b"%011o\0" % value


def binary(value: int) -> bytes:
    return b"\x80" + value.to_bytes(11, "big")


def number(value: int) -> bytes:
    """As GNU tar writes it: octal where that reaches."""
    return octal(value) if value < 8**11 else binary(value)


def head(
    name: bytes = NAME, size: int | bytes = 0, kind: bytes = b"0", magic: bytes = USTAR, more: bytes = b"", off: int = 0
) -> bytes:
    """A header. more: what stands from byte 345 on; off: how much the checksum is wrong."""
    field = octal(size) if isinstance(size, int) else size
    block = name.ljust(100, b"\0") + b"0000600\0" + b"0000000\0" * 2 + field + octal(0) + b" " * 8
    block += kind + bytes(100) + magic + bytes(64) + b"0000000\0" * 2 + more.ljust(167, b"\0")
    return block[:148] + b"%06o\0 " % (sum(block) + off) + block[156:]


def regular(data: bytes, name: bytes = NAME, kind: bytes = b"0", magic: bytes = USTAR, more: bytes = b"") -> bytes:
    return head(name, len(data), kind, magic, more) + pad(data)


def extended(body: bytes, kind: bytes = b"x") -> bytes:
    """A header that describes the next member."""
    return head(b"vm1/PaxHeaders/private.img", len(body), kind) + pad(body)


def pax(*records: tuple[str, str | int], kind: bytes = b"x") -> bytes:
    body = b""
    for key, value in records:
        rest = f" {key}={value}\n".encode()
        length = next(n for n in range(len(rest), len(rest) + 9) if len(str(n)) + len(rest) == n)
        body += b"%d" % length + rest
    return extended(body, kind)


def sparse_head(size: int, real: str | int, major: int = 1, minor: int = 0) -> bytes:
    """The headers of a member in pax sparse 1.0; size: of its body."""
    version = (("GNU.sparse.major", major), ("GNU.sparse.minor", minor))
    records = pax(*version, ("GNU.sparse.name", NAME.decode()), ("GNU.sparse.realsize", real))
    return records + head(b"vm1/GNUSparseFile.0/private.img", size)


def map_text(entries: Entries) -> bytes:
    return b"%d\n" % len(entries) + b"".join(b"%d\n%d\n" % entry for entry in entries)


def sparse(real: str | int, text: Entries | bytes, data: bytes, extra: int = 0) -> bytes:
    """A member in pax sparse 1.0. text: its map; extra: added to the size in the header."""
    body = pad(text if isinstance(text, bytes) else map_text(text)) + data
    return sparse_head(len(body) + extra, real) + pad(body)


def old(real: int | bytes, entries: Entries | bytes, data: bytes, extra: int = 0, endless: bool = False) -> bytes:
    """A member in GNU tar's old sparse format. extra: added to its size; endless: the last block announces another."""
    packed = entries if isinstance(entries, bytes) else b"".join(number(o) + number(n) for o, n in entries)
    first, rest = packed[:96], packed[96:]
    flag = b"\1" if rest or endless else b"\0"
    real_size = number(real) if isinstance(real, int) else real
    out = head(size=len(data) + extra, kind=b"S", magic=GNU, more=bytes(41) + first.ljust(96, b"\0") + flag + real_size)
    while rest:
        block, rest = rest[:504], rest[504:]
        flag = b"\1" if rest or endless else b"\0"
        out += (block.ljust(504, b"\0") + flag).ljust(512, b"\0")
    return out + pad(data)
