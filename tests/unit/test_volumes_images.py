"""Disk images in formats of their own: a warning, or a refusal if the file is not the complete image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qbtools.errors import Refused
from qbtools.volumes import locate
from qbtools.volumes.kind import SourceOptions


def qcow2(version: int = 3, backing: int = 0, features: int = 0) -> bytes:
    head = b"QFI\xfb" + version.to_bytes(4, "big") + backing.to_bytes(8, "big")
    return head.ljust(72, b"\0") + features.to_bytes(8, "big") + bytes(4000)


def vdi(kind: int) -> bytes:
    return (b"<<< VM Disk Image >>>\n".ljust(64, b"\0") + b"\x7f\x10\xda\xbe").ljust(0x4C, b"\0") + bytes(
        [kind, 0, 0, 0] * 9
    )


def vmdk(parent: bytes) -> bytes:
    head = (b"KDMV".ljust(28, b"\0") + (1).to_bytes(8, "little")).ljust(512, b"\0")
    return head + b"# Disk DescriptorFile\nCID=12345678\nparentCID=" + parent + b"\n"


ALONE = {
    "qcow2": [qcow2(), qcow2(2), qcow2(2, features=4), qcow2(features=1)],
    "vdi": [vdi(1)],
    "vmdk": [vmdk(b"ffffffff"), vmdk(b"FFFFFFFF"), b"KDMV" + b"\xff" * 600],
    "vhdx": [b"vhdxfile" + bytes(600)],
    "vhd": [b"conectix" + bytes(600)],
}
NEEDING = {
    "qcow2": [qcow2(backing=512), qcow2(2, 512), qcow2(features=5)],
    "vdi": [vdi(4)],
    "vmdk": [vmdk(b"12345678"), vmdk(b"ffffffff\nparentFileNameHint="), b"# Disk DescriptorFile\nversion=1\n"],
}


def warnings(path: Path, **options: object) -> list[str]:
    """The warnings while it is read."""
    said: list[str] = []
    how = SourceOptions(warn=said.append)._replace(**options)
    locate.sizes(str(path), how)
    with locate.open_source(str(path), how) as source:
        assert source.size == os.stat(path).st_size
    return [text for text in said if "cannot be locked" not in text]


@pytest.mark.parametrize("kind", ALONE)
def test_an_image_that_is_whole(kind: str, tmp_path: Path) -> None:
    for data in ALONE[kind]:
        (tmp_path / "disk").write_bytes(data)
        text = f"{tmp_path}/disk is a {kind} image: the file is saved as it is, not the disk in it"
        scheme = "" if kind == "vhd" else f"; {kind}:{tmp_path}/disk reads the disk"
        assert warnings(tmp_path / "disk") == [text + scheme]


@pytest.mark.parametrize("kind", NEEDING)
def test_an_image_that_needs_another_file(kind: str, tmp_path: Path) -> None:
    for data in NEEDING[kind]:
        (tmp_path / "disk").write_bytes(data)
        for call in (locate.sizes, locate.open_source):
            with pytest.raises(Refused, match=f"is a {kind} image that needs another file: it") as raised:
                call(str(tmp_path / "disk"), SourceOptions())
            way = f"qcow2:{tmp_path}/disk reads the disk" if kind == "qcow2" else "qemu-img convert -O raw creates"
            assert (raised.value.hint or "").startswith(way)
        for options in ({"opaque": True}, {"state": "current"}):
            assert len(warnings(tmp_path / "disk", **options)) == 1


def test_a_plain_image_is_no_such_image(tmp_path: Path) -> None:
    for data in (b"", b"QFI", bytes(5000), b"anything else" * 100):
        (tmp_path / "disk").write_bytes(data)
        assert warnings(tmp_path / "disk") == []
