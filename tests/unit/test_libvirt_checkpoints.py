"""Which disks can have a checkpoint, and when one is not trusted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import cast
from xml.etree.ElementTree import fromstring

import pytest

from qbtools.errors import Failed, UsageError
from qbtools.hosts.libvirt import checkpoints
from qbtools.hosts.libvirt.checkpoints import Plan, Wish
from qbtools.hosts.libvirt.virsh import Virsh

NEW, OLD = "qbtools-kept-new", "qbtools-kept-old"
END = "<backingStore/>"


def disk(path: Path, target: str = "vda", form: str = "qcow2", backing: str = END, kind: str = "file") -> str:
    return f"<disk type='{kind}'><driver type='{form}'/><source file='{path}'/>{backing}<target dev='{target}'/></disk>"


def backing(path: Path, kind: str = "file") -> str:
    return f"<backingStore type='{kind}'><format type='raw'/><source file='{path}'/>{END}</backingStore>"


class Libvirt:
    """A libvirt with one machine. log: what it was asked to do."""

    def __init__(self, *disks: str) -> None:
        self.disks = disks
        self.known: dict[str, bytes] = {}
        self.lost: list[str] = []
        self.log: list[str] = []
        self.off = False

    def live_xml(self, _uuid: str) -> bytes:
        return f"<domain><devices>{''.join(self.disks)}</devices></domain>".encode()

    def checkpoint(self, _uuid: str, name: str) -> bytes | None:
        return self.known.get(name)

    def running(self) -> frozenset[str]:
        return frozenset(() if self.off else ("u",))

    def delete_checkpoint(self, _uuid: str, name: str) -> None:
        self.log.append("delete")
        if self.lost:
            raise Failed(f"virsh: bitmap '{name}' not found in backing chain of '{self.lost[0]}'")

    def redefine_checkpoint(self, _uuid: str, xml: bytes) -> None:
        (wanted,) = fromstring(xml).findall(f"disks/disk[@name='{self.lost.pop(0)}']")
        self.log.append(f"redefine {wanted.attrib}")

    def plan(self, *disks: str) -> Plan:
        """Also makes the checkpoint OLD of the machine as it is."""
        found = checkpoints.plan(cast(Virsh, self), "u", disks, Wish(NEW, OLD))
        self.known = {OLD: found._replace(name=OLD).to_xml(disks)}
        return found


@pytest.fixture
def images(tmp_path: Path) -> tuple[Path, Path]:
    found = tmp_path / "a", tmp_path / "b"
    for path in found:
        path.write_bytes(b"image")
    return found


def test_images_that_are_the_same(images: tuple[Path, Path]) -> None:
    host = Libvirt(disk(images[0]), disk(images[1], "vdb"))
    first = host.plan("vda", "vdb")
    why = "libvirt has no checkpoint of its last state"
    assert (list(first.since), first.reasons) == ([], {"vda": why, "vdb": why})
    images[0].write_bytes(b"the machine writes")
    second = host.plan("vda", "vdb")
    assert (second.name, second.base, list(second.since), second.reasons) == (NEW, OLD, ["vda", "vdb"], {})


def exchange(images: tuple[Path, Path]) -> None:
    other = images[0].with_suffix(".other")
    images[0].rename(other)
    images[1].rename(images[0])
    other.rename(images[1])


def copy(images: tuple[Path, Path]) -> None:
    data = images[0].read_bytes()
    images[0].rename(images[0].with_suffix(".old"))
    images[0].write_bytes(data)


def change_backing(images: tuple[Path, Path]) -> None:
    os.utime(images[1], ns=(0, 5))


@pytest.mark.parametrize("change", [exchange, copy, change_backing])
def test_another_image(images: tuple[Path, Path], change: Callable[[tuple[Path, Path]], None]) -> None:
    """Bitmaps of one checkpoint have the same name in all images, so libvirt does not notice it."""
    host = Libvirt(disk(images[0], backing=backing(images[1])))
    host.plan("vda")
    assert host.plan("vda").since == ["vda"]
    change(images)
    found = host.plan("vda")
    assert (found.name, list(found.since)) == (NEW, [])
    assert found.reasons == {"vda": "its image is another one than at its last state"}
    assert host.plan("vda").since == ["vda"]


def test_disks_without_bitmaps(images: tuple[Path, Path]) -> None:
    no_file = "its image is not a file, or has a backing file that is none"
    odd = {
        disk(images[0], form="raw"): "a disk of the format raw has no bitmap",
        disk(images[0], kind="block"): no_file,
        disk(images[0], backing=backing(images[1], "network")): no_file,
        disk(images[0], backing=""): "libvirt does not tell the backing files of its image",
        disk(images[0].with_suffix(".gone")): f"cannot look at {images[0]}.gone: No such file or directory",
        "": "libvirt does not list it",
    }
    for text, why in odd.items():
        found = Libvirt(text, disk(images[1], "vdb")).plan("vda", "vdb")
        assert (found.reasons["vda"], list(found.images)) == (why, ["vdb"])
        xml = found.to_xml(["vda", "vdb", "sda"]).decode()
        assert [f'name="{name}" checkpoint="{what}"' in xml for name, what in (
            ("vda", "no"), ("vdb", "bitmap"), ("sda", "no"),
        )] == [True] * 3  # fmt: skip
        alone = Libvirt(text).plan("vda")
        assert (alone.name, alone.reasons) == ("", {"vda": why})


def test_a_disk_that_is_new(images: tuple[Path, Path]) -> None:
    host = Libvirt(disk(images[0]))
    host.plan("vda")
    host.disks = disk(images[0]), disk(images[1], "vdb")
    found = host.plan("vda", "vdb")
    assert found.since == ["vda"]
    assert found.reasons == {"vdb": "the checkpoint of its last state has no bitmap of it"}


def test_what_is_tried_when_libvirt_refuses(images: tuple[Path, Path]) -> None:
    host = Libvirt(disk(images[0]), disk(images[1], "vdb", "raw"))
    host.plan("vda", "vdb")
    full = host.plan("vda", "vdb").less("it is broken")
    assert full is not None
    assert (full.name, list(full.since), full.reasons["vda"], full.problem) == (NEW, [], "it is broken", "")
    none = full.less("it cannot be made")
    assert none is not None
    assert (none.name, none.reasons["vda"], none.problem) == ("", "it is broken", "it cannot be made")
    assert none.less("no room") is None


def test_a_libvirt_that_fails(images: tuple[Path, Path]) -> None:
    """The machine is saved without a checkpoint."""
    for text, why in {"<a>": "the metadata is not well-formed", "<x>" * 201 + "</x>" * 201: "nested more than"}.items():
        found = Libvirt(text).plan("vda")
        assert why in found.problem and found == Plan("", "", {}, (), {"vda": found.problem}, found.problem)


def test_nothing_is_looked_at_without_a_wish() -> None:
    assert checkpoints.plan(cast(Virsh, None), "u", ["vda"], Wish()) == Plan("", "", {}, (), {})


def test_names_that_are_not_ours() -> None:
    environ = {"QB_CHECKPOINT": NEW, "QB_CHECKPOINT_BASE": OLD, "PATH": "/bin"}
    assert checkpoints.wished(environ) == Wish(NEW, OLD)
    assert checkpoints.wished({}) == Wish()
    for name in environ:
        if name != "PATH":
            with pytest.raises(UsageError, match="^mine is not the name of a checkpoint of qbtools$"):
                checkpoints.wished({name: "mine"})


def test_removing_one(images: tuple[Path, Path]) -> None:
    """Also if libvirt has lost its bitmaps, of which it deletes none then."""
    host = Libvirt(disk(images[0]), disk(images[1], "vdb"))

    def remove() -> bool:
        return checkpoints.remove(cast(Virsh, host), "u", OLD)

    assert remove() and host.log == []
    host.plan("vda", "vdb")
    host.off = True
    assert not remove() and host.log == []
    host.off = False
    host.lost = ["vdb", "vda"]
    assert remove()
    changed = "redefine {'name': '%s', 'checkpoint': 'no'}"
    assert host.log == ["delete", changed % "vdb", "delete", changed % "vda", "delete"]
    host.lost = ["vdc"]
    with pytest.raises(Failed, match="not found in backing chain of 'vdc'$"):
        remove()
