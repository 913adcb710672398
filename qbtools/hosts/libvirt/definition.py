"""The XML with which a restore defines a domain: made of the XML that was in the archive, or a plain one.

Nothing of the archive's XML is taken that is not in the list of allowed.py. Its disks are the new volumes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from xml.etree.ElementTree import Element, SubElement

from qbtools.domains import names, safexml
from qbtools.domains.qubesxml import LIBVIRT, Domain
from qbtools.errors import Refused
from qbtools.hosts.libvirt import allowed, naming, tpm
from qbtools.hosts.libvirt.devices import NewDisk, add_disks, fill, set_network
from qbtools.hosts.libvirt.facts import Facts
from qbtools.hosts.libvirt.machine import NVRAM
from qbtools.hosts.libvirt.virsh import UUID
from qbtools.lean import NamedTuple

_REMOVABLE = ("cdrom", "floppy")
_MEMORY = 2048  # MiB
_MOST_MEMORY = 1 << 22
_MOST_CPUS = 64
_SHOWN = 12


class Definition(NamedTuple):
    """root: the XML, without UUID. changes: sentences about what is not as in the archive.

    uuid: its UUID in the archive; None if it had none.
    """

    root: Element
    changes: list[str]
    uuid: str | None

    @property
    def has_tpm(self) -> bool:
        """Whether the machine has a TPM whose state is in files."""
        return tpm.has_state(self.root)

    def to_xml(self, uuid: str, keep_macs: bool) -> bytes:
        """The XML for virsh. Without keep_macs, libvirt chooses new MAC addresses."""
        safexml.child(self.root, "uuid").text = uuid
        if not keep_macs:
            for interface in self.root.iterfind("devices/interface"):
                for mac in interface.findall("mac"):
                    interface.remove(mac)
        return safexml.serialise(self.root)


def made(domain: Domain, disks: Sequence[NewDisk], facts: Facts, taken: Collection[str]) -> Definition:
    """The definition of a domain of a document with these disks. Refused if this host cannot run it.

    taken: names of domains of libvirt.
    """
    untrusted = domain.element.find(f"{LIBVIRT}/domain")
    if untrusted is None:
        return Definition(_plain(domain, disks, facts), [], None)
    return _Adapted(domain, untrusted, facts).definition(disks, taken)


def _plain(domain: Domain, disks: Sequence[NewDisk], facts: Facts) -> Element:
    """A machine with the memory and the processors of the domain, on virtio."""
    kvm = facts.has_kvm(facts.arch)
    root = Element("domain", type="kvm" if kvm else "qemu")
    SubElement(root, "name").text = domain.name
    SubElement(root, "memory", unit="MiB").text = str(_memory(domain))
    SubElement(root, "vcpu").text = str(min(names.number(domain.properties.get("vcpus", "")) or 1, _MOST_CPUS))
    system = SubElement(root, "os")
    kind = SubElement(system, "type", arch=facts.arch)
    kind.text = "hvm"
    if facts.has_machine(facts.arch, "q35"):
        kind.set("machine", "q35")
    features = SubElement(root, "features")
    SubElement(features, "acpi")
    SubElement(root, "cpu", mode="host-model" if kvm else "maximum")
    devices = SubElement(root, "devices")
    add_disks(root, disks)
    if domain.properties.get("netvm") != "":
        set_network(SubElement(devices, "interface"), facts)
    SubElement(devices, "console", type="pty")
    SubElement(devices, "graphics", type="vnc")
    return root


def _memory(domain: Domain) -> int:
    """MiB. In Qubes OS a machine can grow to maxmem, and gets memory at its start."""
    found = [names.number(domain.properties.get(key, "")) for key in ("maxmem", "memory")]
    return min(next((number for number in found if number), _MEMORY), _MOST_MEMORY)


class _Adapted:
    """The XML of an archive, for this host."""

    def __init__(self, domain: Domain, untrusted: Element, facts: Facts) -> None:
        self._domain = domain
        self._facts = facts
        self._changes: list[str] = []
        self._lost: list[str] = []
        self._root, self._dropped = allowed.taken(untrusted)
        self._emulator = untrusted.findtext("devices/emulator", "").strip()
        self._bad = _bad_interfaces(untrusted)
        untrusted_uuid = untrusted.findtext("uuid", "").strip()
        self._uuid = untrusted_uuid if UUID.fullmatch(untrusted_uuid) else None

    def definition(self, disks: Sequence[NewDisk], taken: Collection[str]) -> Definition:
        self._name(taken)
        arch = self._machine()
        self._processor(arch)
        self._firmware(arch, {disk.name: disk for disk in disks}.get(NVRAM))
        self._disks(disks)
        self._interfaces()
        self._complete(arch)
        lost = list(dict.fromkeys([*self._lost, *self._dropped]))
        if lost:
            more = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
            self._say(f"these parts of its XML are not restored: {', '.join(lost[:_SHOWN])}{more}")
        return Definition(self._root, self._changes, self._uuid)

    def _say(self, text: str) -> None:
        self._changes.append(f"{self._domain.name}: {text}")

    def _name(self, taken: Collection[str]) -> None:
        """Gives its own name back, if this is the name that an archive has another one for."""
        element = safexml.child(self._root, "name")
        if not naming.fits(element.text or "", self._domain.name):
            element.text, self._uuid = self._domain.name, None
        elif element.text in taken:
            self._say(f"its name {names.quoted(element.text or '')} is taken: it is called {self._domain.name}")
            element.text, self._uuid = self._domain.name, None

    def _machine(self) -> str:
        """The architecture. Changes the kind of domain and the type of machine to what there is."""
        kind = safexml.child(safexml.child(self._root, "os"), "type")
        kind.text = "hvm"
        arch = kind.get("arch") or self._facts.arch
        kind.set("arch", arch)
        if self._facts.guest(arch) is None:
            raise Refused(f"{self._domain.name} cannot run on this host: there is no emulator for {arch}")
        if self._root.get("type") != "qemu":
            self._root.set("type", "kvm" if self._facts.has_kvm(arch) else "qemu")
            if self._root.get("type") == "qemu":
                self._say("this host has no KVM: the machine is emulated, which is slow")
                self._drop("features", lambda part: part.tag in ("hyperv", "kvm"))
                self._drop("clock", lambda part: part.get("name") in ("kvmclock", "hypervclock", "tsc"))
        if self._emulator and not self._facts.has_emulator(self._emulator):
            self._say(f"this host does not have the emulator {names.quoted(self._emulator)}: it uses its own")
        old = kind.get("machine", "")
        if old and not self._facts.has_machine(arch, old):
            new = next((one for one in _likely(old) if self._facts.has_machine(arch, one)), None)
            kind.attrib.pop("machine")
            if new is not None:
                kind.set("machine", new)
            self._say(f"this host has no machine type {old}: {new or 'its default'} is used")
        return arch

    def _drop(self, path: str, unwanted: Callable[[Element], bool]) -> None:
        parent = self._root.find(path)
        for part in [] if parent is None else list(parent):
            if parent is not None and unwanted(part):
                parent.remove(part)
                self._lost.append(f"{path}/{part.tag}")

    def _processor(self, arch: str) -> None:
        cpu = self._root.find("cpu")
        if cpu is None or cpu.get("mode") is None:
            if cpu is None or cpu.find("model") is None:
                return
            cpu.set("mode", "custom")
        mode = cpu.get("mode", "")
        able = self._facts.domain(arch, self._root.get("type", ""))
        model = cpu.findtext("model", "")
        if able.find(f"cpu/mode[@name='{mode}'][@supported='yes']") is not None and (
            mode != "custom"
            or any((one.text, one.get("usable")) == (model, "yes") for one in able.iterfind("cpu/mode/model"))
        ):
            return
        new = "host-model" if self._root.get("type") == "kvm" else "maximum"
        for part in [part for part in cpu if part.tag in ("model", "vendor", "feature")]:
            cpu.remove(part)
        cpu.attrib = {"mode": new}
        self._say(f"this host does not have the processor {model or mode}: {new} is used")

    def _firmware(self, arch: str, nvram: NewDisk | None) -> None:
        system = safexml.child(self._root, "os")
        loader = system.find("loader")
        able = self._facts.domain(arch, self._root.get("type", ""))
        if loader is not None and loader.text not in {one.text for one in able.iterfind("os/loader/value")}:
            if loader.text:
                self._say(f"this host does not know the firmware {names.quoted(loader.text)}: libvirt chooses one")
                if loader.get("type") == "pflash" or nvram is not None:
                    system.set("firmware", "efi")
            system.remove(loader)
        if nvram is not None:
            SubElement(system, "nvram").text = nvram.path

    def _disks(self, disks: Sequence[NewDisk]) -> None:
        devices = safexml.child(self._root, "devices")
        missing = {disk.name: disk for disk in disks if disk.name != NVRAM}
        for element in devices.findall("disk"):
            target = element.find("target")
            name = "" if target is None else target.get("dev", "")
            if element.get("device") in _REMOVABLE and target is not None:
                element.set("type", "file")  # without a medium
            elif element.get("device", "disk") == "disk" and name in missing:
                for mark in element.findall("readonly"):
                    element.remove(mark)
                fill(element, missing.pop(name))
            else:
                devices.remove(element)
                self._lost.append(allowed.named(f"devices/disk {name}"))
        add_disks(self._root, list(missing.values()))

    def _interfaces(self) -> None:
        devices = safexml.child(self._root, "devices")
        found = devices.findall("interface")
        for interface in found:
            source = interface.find("source")
            network = "" if source is None else source.get("network", "")
            bridge = "" if source is None else source.get("bridge", "")
            kind = interface.get("type")
            if kind == "user" and source is not None:
                interface.remove(source)
            elif (kind == "network" and network not in self._facts.networks) or (
                kind == "bridge" and not self._facts.has_bridge(bridge)
            ):
                new = set_network(interface, self._facts)
                self._say(f"this host has no {kind} {names.quoted(network or bridge)}: {new} is used")
        for old, kind in self._bad:
            interface = SubElement(devices, "interface")
            interface.extend(old)
            new = set_network(interface, self._facts)
            self._say(f"its interface of type {names.quoted(kind)} cannot be restored: {new} is used")
        if self._bad:
            self._dropped.remove("devices/interface")

    def _complete(self, arch: str) -> None:
        """Removes devices whose essential part was not allowed, and a TPM that this host cannot emulate."""
        devices = safexml.child(self._root, "devices")
        for tag in ("rng", "tpm"):
            for element in devices.findall(tag):
                backend = element.find("backend")
                if backend is None or (tag == "rng" and not backend.text):
                    devices.remove(element)
        able = self._facts.domain(arch, self._root.get("type", "")).find("devices/tpm")
        lacks = able is not None and able.find("enum[@name='backendModel'][value='emulator']") is None
        for element in devices.findall("tpm") if lacks else []:
            devices.remove(element)
            self._say("this host has no swtpm: the machine gets no TPM, and the state of its TPM is not restored")


def macs(root: Element) -> list[str]:
    """The MAC addresses in the XML of a domain, in lower case."""
    return [mac.get("address", "").lower() for mac in root.iterfind("devices/interface/mac")]


def _bad_interfaces(untrusted: Element) -> list[tuple[list[Element], str]]:
    """What is allowed in interfaces whose type is not, and the type."""
    found = []
    for interface in untrusted.iterfind("devices/interface"):
        kind = interface.get("type", "")
        if kind not in allowed.INTERFACES:
            root = Element("domain")
            copy = SubElement(SubElement(root, "devices"), "interface", type="user")
            copy.extend(part for part in interface if part.tag in ("mac", "model", "boot", "link", "address"))
            (clean,) = allowed.taken(root).element.findall("devices/interface")
            found.append((list(clean), kind))
    return found


def _likely(machine: str) -> tuple[str, ...]:
    """Types of machine that can replace this one."""
    return ("q35", "pc") if "q35" in machine else ("pc", "q35") if machine.startswith("pc") else ("virt",)
