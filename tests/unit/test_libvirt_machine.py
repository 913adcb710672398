"""The XML of a domain of libvirt: its volumes, and what is not saved."""

from __future__ import annotations

import pytest

from qbtools.domains import safexml
from qbtools.errors import Damaged
from qbtools.hosts.libvirt.machine import Disk, Left, Machine


def machine(devices: str = "", os: str = "", name: str = "vm") -> Machine:
    text = f"<domain type='kvm'><name>{name}</name><uuid>u</uuid><os>{os}</os><devices>{devices}</devices></domain>"
    return Machine(text.encode())


def disk(rest: str = "", source: str = "<source file='/a.img'/>", form: str = "raw", words: str = "type='file'") -> str:
    return f"<disk {words}><driver name='qemu' type='{form}'/>{source}<target dev='vda' bus='virtio'/>{rest}</disk>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (disk(), Disk("vda", "file", "raw", "/a.img")),
        (disk(form="qcow2", words="type='file' device='disk'"), Disk("vda", "file", "qcow2", "/a.img")),
        ("<disk type='file'><source file='/a'/><target dev='sda'/></disk>", Disk("sda", "file", "raw", "/a")),
        (disk(source="<source dev='/dev/vg/a'/>", words="type='block'"), Disk("vda", "block", "raw", "/dev/vg/a")),
        (disk(source="<source pool='p' volume='v'/>", words="type='volume'"), Disk("vda", "volume", "raw", "v", "p")),
        (
            disk(source="<source protocol='rbd' name='pool/a'><host name='h'/></source>", words="type='network'"),
            Disk("vda", "network", "raw", "network rbd pool/a", problem="its kind is network"),
        ),
        (
            disk(source="<source type='unix' path='/s'/>", words="type='vhostuser'"),
            Disk("vda", "vhostuser", "raw", "", problem="it has no source"),
        ),
        (
            disk(source="<source file='/a'><slices><slice type='storage' offset='1' size='2'/></slices></source>"),
            Disk("vda", "file", "raw", "/a", problem="it is only a part of its file"),
        ),
        (disk(source=""), Disk("vda", "file", "raw", "", problem="it has no source")),
        (disk("<shareable/>"), Disk("vda", "file", "raw", "/a.img")),
        (disk(source="<source file='/a &amp;&#9;b'/>"), Disk("vda", "file", "raw", "/a &\tb")),
    ],
)
def test_a_disk(text: str, expected: Disk) -> None:
    found = machine(text)
    assert (found.disks, found.left) == ([expected], [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (disk(words="type='file' device='cdrom'"), Left("/a.img", "the medium of a removable drive, vda")),
        (disk(words="type='file' device='floppy'"), Left("/a.img", "the medium of a removable drive, vda")),
        (disk("<readonly/>"), Left("/a.img", "a read-only disk, vda")),
        (
            disk(source="<source dev='/dev/sdb'/>", words="type='block' device='lun'"),
            Left("/dev/sdb", "a device of the host that is passed through, vda"),
        ),
        (
            disk(source="<source type='pci' namespace='1'><address/></source>", words="type='nvme'"),
            Left("nvme", "a device of the host that is passed through, vda"),
        ),
        (
            disk().replace("'vda'", "'../x'"),
            Left("/a.img", 'its target "../x" cannot be the name of a volume'),
        ),
        (
            disk().replace("'vda'", "'nvram'"),
            Left("/a.img", 'its target "nvram" cannot be the name of a volume'),
        ),
        (
            "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/><product id='0x2'/></source></hostdev>",
            Left("usb subsystem 0x1 0x2", "a device of the host that is passed through"),
        ),
        ("<hostdev/>", Left("a device", "a device of the host that is passed through")),
        (
            "<interface type='hostdev'><source><address type='pci' bus='0x3'/></source></interface>",
            Left("hostdev pci 0x3", "a network device of the host that is passed through"),
        ),
        (
            "<tpm><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>",
            Left("/dev/tpm0", "a device of the host that is passed through"),
        ),
        (
            "<filesystem type='mount'><source dir='/srv'/><target dir='x'/></filesystem>",
            Left("/srv", "a directory of the host that is shared with the machine"),
        ),
        (
            "<memory model='nvdimm'><source><path>/nv</path></source></memory>",
            Left("/nv", "memory that keeps its content"),
        ),
    ],
)
def test_what_is_not_saved(text: str, expected: Left) -> None:
    found = machine(text)
    assert (found.disks, found.left) == ([], [expected])


def test_what_is_not_missed() -> None:
    empty = "<disk type='file' device='cdrom'><target dev='sda'/></disk>"
    found = machine(f"{empty}<interface type='network'/><memory model='dimm'/><tpm><backend type='emulator'/></tpm>")
    assert (found.disks, found.left, found.has_tpm) == ([], [], True)
    assert not machine().has_tpm


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<nvram>/n.fd</nvram>", [Disk("nvram", "file", "raw", "/n.fd")]),
        ("<nvram template='/t' format='qcow2'>/n</nvram>", [Disk("nvram", "file", "qcow2", "/n")]),
        ("<nvram type='file'><source file='/n'/></nvram>", [Disk("nvram", "file", "raw", "/n")]),
        ("<nvram type='block'><source dev='/dev/n'/></nvram>", [Disk("nvram", "block", "raw", "/dev/n")]),
        (
            "<nvram type='network'><source protocol='iscsi' name='n'/></nvram>",
            [Disk("nvram", "network", "raw", "network iscsi n", problem="its kind is network")],
        ),
        ("<nvram template='/t'/>", []),
    ],
)
def test_the_variables_of_the_firmware(text: str, expected: list[Disk]) -> None:
    assert machine(os=text).disks == expected


def test_files_of_the_host() -> None:
    found = machine(os="<kernel>/k</kernel><initrd>/i</initrd><loader readonly='yes'>/l</loader>").left
    assert [one.what for one in found] == ["/k", "/i"]


def test_the_names() -> None:
    found = machine(name="a &lt;b&gt;")
    assert (found.name, found.uuid, found.element.tag) == ("a <b>", "u", "domain")


BOMB = b'<!DOCTYPE d [<!ENTITY a "x"><!ENTITY b "&a;&a;">]><domain>&b;</domain>'


@pytest.mark.parametrize(
    "xml",
    [
        b"",
        b"<domain/><domain/>",
        b"<pool/>",
        b"<domain>",
        b"</libvirt></domain><domain><libvirt><domain/>",
        BOMB,
        b"<domain/>" + BOMB,
        b"<domain>&b;</domain>",
        b"<domain>" + b"<a>" * 28 + b"</a>" * 28 + b"</domain>",
        b"<domain>" + b"x" * (safexml.MAX_TEXT + 1) + b"</domain>",
        b"<domain>" + b"<a/>" * (safexml.MAX_PARTS + 1) + b"</domain>",
        b"<domain>\xff</domain>",
        b"<domain>\0</domain>",
    ],
)
def test_xml_that_cannot_be_used(xml: bytes) -> None:
    with pytest.raises(Damaged):
        Machine(xml)
