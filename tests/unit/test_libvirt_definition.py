"""What a restore takes of the XML in an archive, and the machine that it defines."""

from __future__ import annotations

from collections.abc import Collection
from xml.etree.ElementTree import Element, SubElement, fromstring, tostring

import pytest

from qbtools.domains.qubesxml import Domain
from qbtools.errors import Refused
from qbtools.hosts.libvirt import allowed, definition
from qbtools.hosts.libvirt.definition import Definition
from qbtools.hosts.libvirt.devices import NewDisk
from qbtools.hosts.libvirt.facts import Facts
from qbtools.hosts.libvirt.virsh import Virsh

UUID = "5a0c9b3e-7a5b-4d8e-9d2f-0123456789ab"
QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
CAPABILITIES = """<capabilities><host><cpu><arch>x86_64</arch></cpu></host><guest><os_type>hvm</os_type>
<arch name='x86_64'><emulator>/usr/bin/qemu-system-x86_64</emulator><machine canonical='pc-q35-7.2'>q35</machine>
<machine>pc-q35-6.0</machine><machine canonical='pc-i440fx-7.2'>pc</machine><domain type='qemu'/>KVM</arch></guest>
</capabilities>"""
ABLE = """<domainCapabilities><os><loader><value>/usr/share/OVMF/CODE.fd</value></loader></os><cpu>
<mode name='host-passthrough' supported='HOST'/><mode name='host-model' supported='yes'/>
<mode name='maximum' supported='yes'/><mode name='custom' supported='yes'><model usable='yes'>qemu64</model>
<model usable='no'>Skylake</model></mode></cpu><devices>TPM</devices></domainCapabilities>"""


class FakeVirsh(Virsh):
    tpm = ""
    """What it says of TPMs."""

    def __init__(self, kvm: bool, networks: list[str]) -> None:
        super().__init__("qemu:///system")
        self._kvm, self._networks = kvm, networks

    def capabilities(self) -> bytes:
        return CAPABILITIES.replace("KVM", "<domain type='kvm'/>" * self._kvm).encode()

    def domain_capabilities(self, arch: str, kind: str) -> bytes:
        return ABLE.replace("HOST", "yes" if kind == "kvm" else "no").replace("TPM", self.tpm).encode()

    def networks(self) -> list[str]:
        return self._networks


def domain(xml: str | None = None, **properties: str) -> Domain:
    root = Element("domain", {"id": "domain-1", "class": "StandaloneVM"})
    table = SubElement(root, "properties")
    for name, text in {"name": "work", "label": "red", **properties}.items():
        SubElement(table, "property", name=name).text = text
    if xml is not None:
        SubElement(root, "libvirt").append(fromstring(xml))
    return Domain(root, {"red": "red"})


def made(
    found: Domain, *volumes: str, kvm: bool = True, networks: Collection[str] = ("default",), taken: str = ""
) -> Definition:
    disks = [NewDisk(name, f"/images/work-{name}.img", "raw") for name in volumes]
    return definition.made(found, disks, Facts(FakeVirsh(kvm, list(networks))), {taken})


def xml(devices: str = "", head: str = "", kind: str = "kvm", machine: str = "pc-q35-7.2") -> str:
    return (
        f"<domain type='{kind}'><name>work</name><uuid>{UUID}</uuid><memory unit='KiB'>65536</memory><vcpu>1</vcpu>"
        f"<os><type arch='x86_64' machine='{machine}'>hvm</type></os>{head}<devices>{devices}</devices></domain>"
    )


def disk(target: str, source: str = "/old.img") -> str:
    return f"<disk type='file' device='disk'><source file='{source}'/><target dev='{target}' bus='virtio'/></disk>"


@pytest.mark.parametrize(
    ("part", "dropped"),
    [
        ("<hostdev mode='subsystem'/>", "devices/hostdev"),
        ("<filesystem type='mount'><source dir='/etc'/></filesystem>", "devices/filesystem"),
        ("<shmem name='x'/>", "devices/shmem"),
        ("<serial type='file'><source path='/etc/passwd'/></serial>", "devices/serial"),
        ("<serial type='pty'><log file='/etc/passwd'/></serial>", "devices/serial/log"),
        ("<serial type='pty'><source path='/dev/sda'/></serial>", "devices/serial/source"),
        ("<channel type='unix'><source mode='bind' path='/x'/></channel>", "devices/channel/source@path"),
        ("<channel type='unix'><source mode='connect'/></channel>", "devices/channel/source"),
        ("<interface type='network'><script path='/bin/sh'/></interface>", "devices/interface/script"),
        ("<interface type='network'><backend tap='/x' vhost='/y'/></interface>", "devices/interface/backend"),
        ("<interface type='network'><model type='/bin/sh'/></interface>", "devices/interface/model"),
        ("<rng model='virtio'><backend model='random'>/dev/sda</backend></rng>", "devices/rng/backend"),
        ("<rng model='virtio'><backend model='egd' type='tcp'/></rng>", "devices/rng/backend"),
        ("<tpm><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>", "devices/tpm/backend"),
        ("<input type='evdev'><source dev='/dev/input/event1'/></input>", "devices/input"),
        ("<graphics type='vnc' socket='/x'/>", "devices/graphics@socket"),
        ("<graphics type='vnc' listen='0.0.0.0'/>", "devices/graphics@listen"),
        ("<graphics type='egl-headless'><gl rendernode='/x'/></graphics>", "devices/graphics"),
        ("<video><driver vgaconf='io'/></video>", "devices/video/driver"),
        ("<controller type='pci' model='a/b'/>", "devices/controller"),
        ("<watchdog model='i6300esb' action='dump'/>", "devices/watchdog@action"),
        ("<disk device='lun'/>", "devices/disk"),
        ("<disk device='disk'><mirror file='/x'/></disk>", "devices/disk/mirror"),
        ("<disk device='disk'><target dev='vda' bus='/x'/></disk>", "devices/disk/target"),
        ("<emulator>/bin/sh</emulator>", None),
    ],
)
def test_devices_that_are_dropped(part: str, dropped: str | None) -> None:
    found = allowed.taken(fromstring(xml(part)))
    assert found.dropped == ([] if dropped is None else [dropped])
    assert "/" not in tostring(found.element, encoding="unicode").replace("/>", "").replace("</", "")


def test_disks_that_are_devices() -> None:
    """The volume of a pool without files is raw, whatever the disk was."""
    old = "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/old'/>"
    text = f"{old}<target dev='vda' bus='virtio'/></disk>"
    volumes = [NewDisk(name, f"/dev/vg/work-{name}", "raw", True) for name in ("vda", "more")]
    root = definition.made(domain(xml(text)), volumes, Facts(FakeVirsh(True, [])), ()).root
    assert [tostring(one, encoding="unicode") for one in root.iterfind("devices/disk")] == [
        '<disk type="block" device="disk"><driver name="qemu" type="raw" /><source dev="/dev/vg/work-vda" />'
        '<target dev="vda" bus="virtio" /></disk>',
        '<disk device="disk" type="block"><driver name="qemu" type="raw" /><source dev="/dev/vg/work-more" />'
        '<target dev="vdb" bus="virtio" /></disk>',
    ]


@pytest.mark.parametrize(
    ("able", "notes"),
    [
        ("", []),
        ("<value>passthrough</value><value>emulator</value>", []),
        (
            "<value>passthrough</value>",
            ["work: this host has no swtpm: the machine gets no TPM, and the state of its TPM is not restored"],
        ),
    ],
)
def test_a_tpm_that_the_host_cannot_emulate(able: str, notes: list[str]) -> None:
    virsh = FakeVirsh(True, [])
    virsh.tpm = f"<tpm supported='yes'><enum name='backendModel'>{able}</enum></tpm>" if able else ""
    text = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
    found = definition.made(domain(xml(text)), [], Facts(virsh), ())
    assert (found.changes, found.has_tpm) == (notes, not notes)
    assert definition.made(domain(xml()), [], Facts(virsh), ()).changes == []


def test_the_secret_of_a_tpm() -> None:
    """It is named, not brought: without it on the host, the machine does not start."""
    text = f"<tpm model='tpm-crb'><backend type='emulator' version='2.0'><encryption secret='{UUID}'/></backend></tpm>"
    found = allowed.taken(fromstring(xml(text)))
    assert found.dropped == []
    assert [one.attrib for one in found.element.iterfind("devices/tpm/backend/encryption")] == [{"secret": UUID}]


@pytest.mark.parametrize(
    ("part", "dropped"),
    [
        (f"<x:commandline xmlns:x='{QEMU}'><x:arg value='-S'/></x:commandline>", f"{{{QEMU}}}commandline"),
        ("<commandline/>", "commandline"),
        ("<on_crash>coredump-destroy</on_crash>", "on_crash"),
        ("<memoryBacking><source type='file'/></memoryBacking>", "memoryBacking"),
        ("<sysinfo type='fwcfg'><entry name='x' file='/etc/shadow'/></sysinfo>", "sysinfo"),
        ("<seclabel type='none'/>", "seclabel"),
        ("<launchSecurity type='sev'/>", "launchSecurity"),
        ("<metadata><a/></metadata>", "metadata/a"),
        ("<ä/>", "'\\xe4'"),
        ("<bootloader>/bin/sh</bootloader>", "bootloader"),
        ("<cpu mode='host-model'><model>../x</model></cpu>", "cpu/model"),
        (f"<vcpu>{'1' * 200}</vcpu>", "vcpu"),
        (f"<{'x' * 200}/>", f"{'x' * 100}..."),
    ],
)
def test_other_parts_that_are_dropped(part: str, dropped: str) -> None:
    assert allowed.taken(fromstring(xml(head=part))).dropped == [dropped]


def test_what_starts_a_kernel_of_the_host() -> None:
    text = xml().replace("<os>", "<os><kernel>/etc/shadow</kernel><initrd>/x</initrd><nvram template='/x'>/y</nvram>")
    found = made(domain(text), "vda")
    assert found.changes == ["work: these parts of its XML are not restored: os/kernel, os/initrd"]
    assert found.root.find("os/nvram") is None


def test_the_disks_are_the_new_volumes() -> None:
    cdrom = "<disk type='file' device='cdrom'><source file='/x.iso'/><target dev='sda' bus='sata'/><readonly/></disk>"
    found = made(domain(xml(disk("vda", "/etc/shadow") + disk("vdb", "/etc/shadow") + cdrom)), "vda", "private")
    assert [(one.find("source"), one.get("device")) for one in found.root.iterfind("devices/disk")][1] == (
        None,
        "cdrom",
    )
    assert [one.get("file") for one in found.root.iterfind("devices/disk/source")] == [
        "/images/work-vda.img",
        "/images/work-private.img",
    ]
    assert [one.get("dev") for one in found.root.iterfind("devices/disk/target")] == ["vda", "sda", "vdb"]
    assert found.changes == ["work: these parts of its XML are not restored: devices/disk vdb"]


def test_identity() -> None:
    network = "<interface type='network'><mac address='52:54:00:00:00:01'/><source network='default'/></interface>"
    found = made(domain(xml(network)), "vda")
    assert found.uuid == UUID and found.changes == []
    other = UUID.replace("5", "6")
    text = found.to_xml(other, True)
    assert b"52:54:00:00:00:01" in text and other.encode() in text
    assert definition.macs(found.root) == ["52:54:00:00:00:01"]
    assert b"52:54" not in found.to_xml(UUID, False) and definition.macs(found.root) == []
    for name in ("../x", "web", "a\nb", ""):
        found = made(domain(xml(network).replace("<name>work<", f"<name>{name}<")))
        assert (found.root.findtext("name"), found.uuid) == ("work", None)
    text = xml().replace("<name>work<", "<name>a b<")
    assert made(domain(text, name="a-b")).root.findtext("name") == "a b"
    assert made(domain(text, name="a-b-2")).root.findtext("name") == "a b"
    found = made(domain(text, name="a-b-2"), taken="a b")
    assert (found.root.findtext("name"), found.uuid) == ("a-b-2", None)
    assert found.changes == ['a-b-2: its name "a b" is taken: it is called a-b-2']


@pytest.mark.parametrize(
    ("text", "kvm", "said"),
    [
        (xml(), True, []),
        (xml(), False, ["this host has no KVM: the machine is emulated, which is slow"]),
        (
            xml(head="<features><acpi/><hyperv><relaxed state='on'/></hyperv></features>"),
            False,
            ["this host has no KVM: the machine is emulated, which is slow", "DROPPED features/hyperv"],
        ),
        (xml(machine="pc-q35-9.9"), True, ["this host has no machine type pc-q35-9.9: q35 is used"]),
        (xml(machine="pc-i440fx-9.9"), True, ["this host has no machine type pc-i440fx-9.9: pc is used"]),
        (xml(head="<cpu mode='host-passthrough'/>"), True, []),
        (
            xml(head="<cpu mode='host-passthrough'/>", kind="qemu"),
            True,
            ["this host does not have the processor host-passthrough: maximum is used"],
        ),
        (xml(head="<cpu mode='custom'><model>qemu64</model></cpu>"), True, []),
        (
            xml(head="<cpu mode='custom'><model>Skylake</model><feature policy='require' name='x'/></cpu>"),
            True,
            ["this host does not have the processor Skylake: host-model is used"],
        ),
        (
            xml("<emulator>/usr/bin/kvm-spice</emulator>"),
            True,
            ['this host does not have the emulator "/usr/bin/kvm-spice": it uses its own'],
        ),
        (
            xml("<interface type='network'><source network='lab'/></interface>"),
            True,
            ['this host has no network "lab": the network default is used'],
        ),
        (
            xml("<interface type='bridge'><source bridge='../x'/></interface>"),
            True,
            ['this host has no bridge "": the network default is used', "DROPPED devices/interface/source@bridge"],
        ),
        (
            xml("<interface type='direct'><source dev='eth0'/></interface>"),
            True,
            ['its interface of type "direct" cannot be restored: the network default is used'],
        ),
        (
            xml().replace("<os>", "<os><loader type='pflash'>/etc/shadow</loader>"),
            True,
            ['this host does not know the firmware "/etc/shadow": libvirt chooses one'],
        ),
        (xml().replace("<os>", "<os><loader type='pflash'>/usr/share/OVMF/CODE.fd</loader>"), True, []),
    ],
)
def test_what_the_host_lacks_is_replaced(text: str, kvm: bool, said: list[str]) -> None:
    lost = "these parts of its XML are not restored:"
    found = made(domain(text), "vda", kvm=kvm)
    assert found.changes == [f"work: {one.replace('DROPPED', lost)}" for one in said]
    restored = tostring(found.root, encoding="unicode")
    for word in "/etc/shadow", "-9.9", "Skylake", "kvm-spice", '"lab"', "../x", "eth0", "hyperv":
        assert word not in restored


def test_an_architecture_that_cannot_run() -> None:
    with pytest.raises(Refused, match="work cannot run on this host: there is no emulator for riscv64"):
        made(domain(xml().replace("x86_64", "riscv64")))


@pytest.mark.parametrize(("kvm", "kind", "cpu"), [(True, "kvm", "host-model"), (False, "qemu", "maximum")])
def test_a_plain_machine(kvm: bool, kind: str, cpu: str) -> None:
    found = made(domain(memory="400", maxmem="4000", vcpus="2"), "root", "private", kvm=kvm)
    root = found.root
    assert (root.get("type"), root.findtext("memory"), root.findtext("vcpu")) == (kind, "4000", "2")
    assert [one.get("dev") for one in root.iterfind("devices/disk/target")] == ["vda", "vdb"]
    assert [one.get("mode") for one in root.iterfind("cpu")] == [cpu]
    assert [one.get("machine") for one in root.iterfind("os/type")] == ["q35"]
    assert [one.get("network") for one in root.iterfind("devices/interface/source")] == ["default"]
    assert found.changes == [] and found.uuid is None
    assert made(domain(), "vdb", "root").root.findtext("memory") == "2048"
    assert made(domain(netvm=""), "root").root.find("devices/interface") is None
    assert made(domain(memory="99999999999", vcpus="-1"), "root").root.findtext("vcpu") == "1"
    alone = made(domain(), "vdb", "root", networks=()).root
    assert [one.get("dev") for one in alone.iterfind("devices/disk/target")] == ["vdb", "vda"]
    assert [one.get("type") for one in alone.iterfind("devices/interface")] == ["user"]
    with pytest.raises(Refused, match="too many volumes"):
        made(domain(), *(f"v{number}" for number in range(27)))


def test_the_variables_of_the_firmware() -> None:
    """The new file has them, whatever path the XML names. Firmware that this host does not have is not taken."""
    loader = "<loader readonly='yes' type='pflash'>{}</loader><nvram template='/etc/shadow'>/etc/shadow</nvram>"
    for path, said, firmware in (
        ("/usr/share/OVMF/CODE.fd", 0, None),
        ("/other.fd", 1, "efi"),
    ):
        found = made(domain(xml().replace("<os>", f"<os>{loader.format(path)}")), "vda", "nvram")
        system = found.root.find("os")
        assert system is not None and len(found.changes) == said
        assert (system.findtext("nvram"), system.get("firmware")) == ("/images/work-nvram.img", firmware)
        assert "shadow" not in tostring(found.root, encoding="unicode")
        assert [one.get("dev") for one in found.root.iterfind("devices/disk/target")] == ["vda"]
