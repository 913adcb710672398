"""Disk images in another format than raw: the bytes of such a file are not the disk that a machine sees."""

from __future__ import annotations

import os

from qbtools.errors import Refused
from qbtools.formats import magic
from qbtools.lean import TYPE_CHECKING
from qbtools.volumes.kind import naming

if TYPE_CHECKING:
    from qbtools.volumes.kind import SourceOptions

_QCOW2_BACKING = slice(8, 16)  # big-endian: the offset of the backing file's name
_QCOW2_VERSION = slice(4, 8)
_QCOW2_NEEDS = slice(72, 80)  # features that a reader must know, from version 3 on
_QCOW2_DATA_FILE = 4  # one of them: the data is in another file
_VDI_TYPE, _VDI_DIFFERENCES = slice(0x4C, 0x50), 4  # little-endian
_VMDK_DESCRIPTOR = slice(28, 36)  # little-endian, in blocks of 512 bytes
_VMDK_TEXT = 20 * 512  # bytes of the descriptor that QEMU reads

CONVERT = "qemu-img convert -O raw creates a plain image"
"""The hint for an image that cannot be read here."""


def look(fd: int, name: str, options: SourceOptions) -> str | None:
    """A warning for a file that is an image in another format than raw; None for any other file.

    Refused if the image needs another file, unless options allow to save it alone.
    """
    with naming(f"read {name}"):
        head = os.pread(fd, magic.HEAD, 0)
        found = magic.kind(head)
        if found not in magic.IMAGES:
            return None
        why = needs(fd, found, head)
    if why and not options.opaque and options.state != "current":
        way = f"qcow2:{name} reads the disk" if found == "qcow2" else CONVERT
        raise Refused(
            f"{name} is a {found} image that needs another file: {why}", f"{way}; --opaque saves the file as it is"
        )
    scheme = f"; {found}:{name} reads the disk" if found in magic.DISKS else ""
    return f"{name} is a {found} image: the file is saved as it is, not the disk in it{scheme}"


def needs(fd: int, found: str, head: bytes) -> str | None:
    """Why an image needs another file; None if it does not, or if that is not known (vhdx, vhd)."""
    if found == "qcow2":
        if any(head[_QCOW2_BACKING]):
            return "it has a backing file"
        features = int.from_bytes(head[_QCOW2_NEEDS], "big") if int.from_bytes(head[_QCOW2_VERSION], "big") > 2 else 0
        return "its data is in another file" if features & _QCOW2_DATA_FILE else None
    if found == "vdi":
        return "it has a parent" if int.from_bytes(head[_VDI_TYPE], "little") == _VDI_DIFFERENCES else None
    if found == "vmdk":
        if head.startswith(b"#"):
            return "its data is in another file"
        text = os.pread(fd, _VMDK_TEXT, min(int.from_bytes(head[_VMDK_DESCRIPTOR], "little"), 1 << 40) * 512)
        _, found_key, rest = text.partition(b"parentCID=")
        parent = (found_key and not rest.lower().startswith(b"ffffffff")) or b"parentFileNameHint" in text
        return "it has a parent" if parent else None
    return None
