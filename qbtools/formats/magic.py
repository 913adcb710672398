"""Recognises the kind of data by its first bytes, and makes the message for data that a stage cannot read.

Each stage needs one kind of data. If it gets another one, that is usually the input of another stage. So the message
names both kinds, and the hint names the right program.
"""

from __future__ import annotations

from qbtools.errors import Damaged, Truncated
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

HEAD = 512
"""Bytes at the beginning that are enough to recognise the kind."""

STREAM, TAR, ARCHIVE = "volume stream", "tar", "archive"
COMPRESSIONS = ("gzip", "bzip2", "xz", "zstd")
DISKS = ("qcow2", "vmdk", "vdi", "vhdx")
"""The images that are a kind of volume."""

IMAGES = (*DISKS, "vhd")

# Offset, bytes, kind. The first match counts: an archive is also a tar archive.
_MAGIC = (
    (0, b"\x1f\x8b\x08", "gzip"),
    (0, b"BZh", "bzip2"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    *((0, bytes([byte]) + b"\x2a\x4d\x18", "zstd") for byte in range(0x50, 0x60)),  # a skippable frame: pzstd
    (0, b"qb-volume ", STREAM),
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vhd"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"backup-header\0", ARCHIVE),
    (257, b"ustar", TAR),
)

_TEXTS = {
    STREAM: "a volume stream",
    TAR: "a tar archive",
    ARCHIVE: "a sealed archive",
    **{name: f"{name} data" for name in COMPRESSIONS},
    **{name: f"a {name} image" for name in IMAGES},
}

# The program that reads each kind.
_TAKERS: dict[str | None, str] = {
    STREAM: "qb-tarwrite and qb-volwrite read it",
    TAR: "qb-tarextract reads it",
    ARCHIVE: "qb-unseal reads it",
    **{name: f"decompress it first: qb-decompress {name}" for name in COMPRESSIONS},
    **{name: f"qb-volread {name}:FILE reads the disk in it" for name in DISKS},
    "vhd": "qemu-img convert -O raw makes a plain image of it",
}


def kind(head: bytes) -> str | None:
    """The kind of data that begins with head (HEAD bytes, or all that there are); None if it is not known."""
    for at, magic, name in _MAGIC:
        if head[at : at + len(magic)] == magic:
            return name
    return None


def empty(name: str) -> Truncated:
    """The error for an empty input. name: of the input."""
    return Truncated(f"{name} is empty: did the program before fail?")


def wrong(name: str, head: bytes, wanted: str, hints: Mapping[str | None, str] = _TAKERS) -> Damaged:
    """The error for an input that begins with head and is not of the wanted kind. hints: by its actual kind."""
    if not head:
        return empty(name)
    found = kind(head)
    if found is None or found == wanted:
        return Damaged(f"{name} is not {_TEXTS[wanted]}", None if found else hints.get(None))
    return Damaged(f"{name} is {_TEXTS[found]}, not {_TEXTS[wanted]}", hints.get(found, _TAKERS[found]))


def check(name: str, head: bytes, wanted: str) -> None:
    """Damaged if head is of a known kind other than wanted, Truncated if it is empty."""
    if not head or kind(head) not in (None, wanted):
        raise wrong(name, head, wanted)
