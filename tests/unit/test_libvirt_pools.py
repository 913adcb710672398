"""New volumes in pools of libvirt that are no directories. libvirt is a stand-in here; its pools have files."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, fromstring

import pytest

from qbtools.domains import compose, safexml
from qbtools.domains.names import UNFINISHED
from qbtools.errors import Failed, Refused
from qbtools.hosts.libvirt.facts import Facts
from qbtools.hosts.libvirt.images import _SCHEMES, DEVICE, Images
from qbtools.hosts.libvirt.poolvolumes import PoolVolumes
from qbtools.hosts.libvirt.tpm import States
from qbtools.hosts.libvirt.unfinished import Unfinished
from qbtools.hosts.libvirt.virsh import Virsh
from qbtools.volumes.marks import Mark

OLD = Mark.own()._replace(start=1)
KINDS = {"default": "dir", "archive": "dir", "vg": "logical", "a": "zfs", "net": "rbd"}
MiB = 1 << 20
ANSWERS = {
    "list": b"",
    "net-list": b"",
    "domxml-to-native": b"",
    "domcapabilities": b"<domainCapabilities/>",
    "capabilities": b"<capabilities><host><cpu><arch>x86_64</arch></cpu></host><guest><os_type>hvm</os_type>"
    b"<arch name='x86_64'><domain type='qemu'/></arch></guest></capabilities>",
}
XML = """<domain type='qemu'><name>work</name><os><type arch='x86_64'>hvm</type><nvram>/old</nvram></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/old'/><target dev='vda'/></disk>
</devices></domain>"""


class FakeVirsh(Virsh):
    """Answers as virsh does. What it makes are files of PLACE/POOL. dies: the verb after which we are killed.

    faster: somebody else makes each volume just before us.
    """

    def __init__(self, place: Path) -> None:
        super().__init__("qemu:///system")
        self._place = place
        self.dies = ""
        self.faster = False
        self.defined = b""
        for name in KINDS:
            (place / name).mkdir()

    def _run(self, *words: str, data: bytes = b"", patience: float = 60) -> bytes:
        verb, options = words[0], dict(word.removeprefix("--").split("=") for word in words[1:] if "=" in word)
        pool = self._place / options.get("pool", "").removeprefix("uuid-")
        volume = pool / options.get("vol", options.get("name", ""))
        if verb in ANSWERS:
            return ANSWERS[verb]
        if verb == "define":
            self.defined = data
            return b""
        if verb == "pool-list":
            return "".join(f"{name}\n" for name in KINDS).encode()
        if verb == "pool-dumpxml":
            about = f"<uuid>uuid-{pool.name}</uuid><target><path>{pool}</path></target>"
            return f"<pool type='{KINDS[pool.name]}'>{about}</pool>".encode()
        if verb == "vol-list":
            return "".join(f" {path.name}   {path}\n" for path in pool.iterdir()).encode()
        if verb == "vol-create-as":
            self._create(volume, int(options["capacity"]))
        elif verb != "pool-refresh" and not volume.exists():
            raise Failed(f"virsh {verb}: Storage volume not found")
        if verb == "vol-delete":
            volume.unlink()
        if verb == self.dies:
            raise KeyboardInterrupt
        key = f"key-{volume.stat().st_ino}" if verb == "vol-key" else str(volume)
        return f"{key}\n".encode()

    def _create(self, volume: Path, size: int) -> None:
        if self.faster:
            volume.write_bytes(b"theirs")
            raise Failed("virsh vol-create-as: it exists")
        with volume.open("xb") as file:
            file.truncate(size)


@pytest.fixture
def virsh(tmp_path: Path) -> FakeVirsh:
    (tmp_path / "state").mkdir()
    return FakeVirsh(tmp_path)


def images(virsh: FakeVirsh, place: Path, *volumes: str, pool: str = "a") -> Images:
    paths = {("work", volume): str(place / pool / f"work-{volume}") for volume in volumes}
    return Images(str(place / "state"), paths, PoolVolumes(virsh, Facts(virsh)))


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def test_the_pools_that_can_have_volumes(virsh: FakeVirsh) -> None:
    """Directories come first: a volume goes to another pool only if that is wanted."""
    found = Facts(virsh).pools
    assert {name: pool.devices for name, pool in found.items()} == {
        "default": False,
        "archive": False,
        "a": True,
        "vg": True,
    }
    assert list(found) == ["default", "archive", "a", "vg"]


@pytest.mark.parametrize("pool", ["a", "vg"])
def test_made_and_removed(pool: str, virsh: FakeVirsh, tmp_path: Path) -> None:
    found = images(virsh, tmp_path, "vda", "vdb", pool=pool)
    found.make("work", [("vda", 3 * MiB), ("vdb", 0)], OLD)
    assert names(tmp_path / pool) == ["work-vda", "work-vdb"]
    assert [(tmp_path / pool / f"work-{name}").stat().st_size for name in ("vda", "vdb")] == [3 * MiB, MiB]
    assert (found.source("work", "vda"), found.strays()) == (f"block:{tmp_path}/{pool}/work-vda", [("work", OLD)])
    found.drop("work")
    assert names(tmp_path / pool) == [] and found.strays() == []


def test_without_its_record_nothing_is_removed(virsh: FakeVirsh, tmp_path: Path) -> None:
    found = images(virsh, tmp_path, "vda")
    found.make("work", [("vda", MiB)], OLD)
    found.unmark("work", ["vda"])
    found.drop("work")
    assert names(tmp_path / "a") == ["work-vda"]
    found.mark("work", ["vda"], OLD)
    found.drop("work")
    assert names(tmp_path / "a") == []


def test_a_volume_of_somebody_else(virsh: FakeVirsh, tmp_path: Path) -> None:
    found = images(virsh, tmp_path, "vda", "vdb")
    (tmp_path / "a/work-vdb").write_bytes(b"theirs")
    with pytest.raises(Refused, match=r"a/work-vdb already exists, but no domain that is being restored has it"):
        found.make("work", [("vda", MiB), ("vdb", MiB)], OLD)
    assert names(tmp_path / "a") == ["work-vdb"] and found.strays() == []


def test_somebody_else_who_was_faster(virsh: FakeVirsh, tmp_path: Path) -> None:
    virsh.faster = True
    found = images(virsh, tmp_path, "vda")
    with pytest.raises(Failed, match="it exists"):
        found.make("work", [("vda", MiB)], OLD)
    found.drop("work")
    assert (tmp_path / "a/work-vda").read_bytes() == b"theirs" and found.strays() == []


def test_a_volume_that_has_taken_the_name(virsh: FakeVirsh, tmp_path: Path) -> None:
    """libvirt tells it from ours by its key."""
    found = images(virsh, tmp_path, "vda")
    found.make("work", [("vda", MiB)], OLD)
    (tmp_path / "new").write_bytes(b"theirs")
    os.rename(tmp_path / "new", tmp_path / "a/work-vda")
    found.drop("work")
    assert (tmp_path / "a/work-vda").read_bytes() == b"theirs" and found.strays() == []


@pytest.mark.parametrize("dies", ["vol-create-as", "vol-key"])
def test_killed_while_it_makes_one(dies: str, virsh: FakeVirsh, tmp_path: Path) -> None:
    """The record has a line before there is a volume, so the next run knows that it is ours."""
    virsh.dies = dies
    with pytest.raises(KeyboardInterrupt):
        images(virsh, tmp_path, "vda").make("work", [("vda", MiB)], OLD)
    virsh.dies = ""
    found = images(virsh, tmp_path, "vda")
    assert names(tmp_path / "a") == ["work-vda"] and found.strays() == [("work", OLD)]
    found.check("work", ["vda"])
    found.drop("work")
    assert names(tmp_path / "a") == [] and found.strays() == []


def test_names_that_lvm_reserves(virsh: FakeVirsh, tmp_path: Path) -> None:
    message = "no logical volume can be called work-x_tdata: names with _tdata in them are reserved for lvm"
    with pytest.raises(Refused, match=message):
        images(virsh, tmp_path, "x_tdata", pool="vg").check("work", ["x_tdata"])
    images(virsh, tmp_path, "x_tdata").check("work", ["x_tdata"])


def test_a_pool_that_is_gone(virsh: FakeVirsh, tmp_path: Path) -> None:
    with pytest.raises(Failed, match=f"libvirt has no active pool with the volume {tmp_path}/net/work-vda"):
        images(virsh, tmp_path, "vda", pool="net").check("work", ["vda"])


def document(*volumes: str, mark: Mark | None = None, name: str = "work") -> bytes:
    """The metadata of one domain; the archive names the pool `vg` for its volumes."""
    root = Element("qubes")
    domains = compose.add_domains(root)
    features = {} if mark is None else {UNFINISHED: str(mark)}
    element = compose.add_domain(domains, 1, name, dict.fromkeys(volumes, 2 * MiB), features)
    for volume in element.iterfind("volume-config/volume"):
        volume.set("pool", "vg")
    SubElement(element, "libvirt").append(fromstring(XML))
    return safexml.serialise(root)


@pytest.mark.parametrize(("wanted", "pool"), [("", "vg"), ("a", "a")])
def test_a_machine_gets_devices(
    wanted: str, pool: str, virsh: FakeVirsh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk is one; the variables of its firmware are a file in any case."""
    monkeypatch.setitem(_SCHEMES, DEVICE, "file")
    states, said = States(virsh.uri, {}), list[str]()
    host = Unfinished(virsh, states, str(tmp_path / "state"), wanted, False, said.append, said.append)
    made = dict(line.strip().split("\t") for line in host.create(document("vda", "nvram", mark=Mark.own())))
    assert made == {"vda": f"file:{tmp_path}/{pool}/work-vda", "nvram": f"file:{tmp_path}/default/work-nvram.img"}
    (tmp_path / pool / "work-vda").write_bytes(b"filled")
    host = Unfinished(virsh, states, str(tmp_path / "state"), wanted, False, said.append, said.append)
    host.set("work", document("vda", "nvram"))
    found = fromstring(virsh.defined)
    (disk,) = found.iterfind("devices/disk")
    assert (disk.get("type"), [part.attrib for part in disk]) == (
        "block",
        [{"name": "qemu", "type": "raw"}, {"dev": f"{tmp_path}/{pool}/work-vda"}, {"dev": "vda"}],
    )
    assert found.findtext("os/nvram") == f"{tmp_path}/default/work-nvram.img"
    assert said == [] and names(tmp_path / "state") == ["qubes.xml", "qubes.xml.lock"]


def test_an_unfinished_machine_goes_with_its_devices(virsh: FakeVirsh, tmp_path: Path) -> None:
    for name in ("create", "remove"):
        host = Unfinished(virsh, States(virsh.uri, {}), str(tmp_path / "state"), "", False, print, print)
        if name == "create":
            host.create(document("vda", mark=OLD))
            assert names(tmp_path / "vg") == ["work-vda"]
        else:
            host.remove("work", str(OLD))
            assert names(tmp_path / "vg") == []


def test_what_an_ended_run_has_left_of_other_machines(virsh: FakeVirsh, tmp_path: Path) -> None:
    """It goes as soon as any machine is restored. What a run that goes on has made stays."""
    made = []
    for name, mark in ("old", OLD), ("other", Mark.own()), ("work", Mark.own()):
        host = Unfinished(virsh, States(virsh.uri, {}), str(tmp_path / "state"), "", False, made.append, print)
        host.create(document("vda", mark=mark, name=name))
    assert names(tmp_path / "vg") == ["other-vda", "work-vda"]
    assert "removing old, which a run that has ended left unfinished" in made


def test_a_pool_that_can_have_no_volumes(virsh: FakeVirsh, tmp_path: Path) -> None:
    host = Unfinished(virsh, States(virsh.uri, {}), str(tmp_path / "state"), "net", False, print, print)
    with pytest.raises(Failed, match="libvirt has no active pool net in which qbtools can create volumes"):
        host.create(document("vda", mark=OLD))
