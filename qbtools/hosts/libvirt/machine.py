"""Reads the XML of a domain of libvirt: its volumes, and what of it is not saved."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

from qbtools.domains import names, safexml
from qbtools.errors import Damaged
from qbtools.hosts.libvirt import tpm
from qbtools.lean import NamedTuple

NVRAM = "nvram"
"""The volume with the variables of the firmware."""

RAW = "raw"

_ABOVE = 4  # elements of a qubes.xml that are above the XML: qubes, domains, domain, libvirt
_REMOVABLE = ("cdrom", "floppy")
_AGENT = "org.qemu.guest_agent.0"
_FROM_HOST = ("kernel", "initrd", "dtb")


class Disk(NamedTuple):
    """A disk that is saved. name: its target. kind, form: as libvirt calls them, such as `file` and `qcow2`.

    source: the path of a file or device; for a volume of a pool its name, and pool is the name of the pool; for other
    kinds text that names it. problem: why it cannot be read when the machine is off, or None.
    """

    name: str
    kind: str
    form: str
    source: str
    pool: str = ""
    problem: str | None = None


class Left(NamedTuple):
    """A part of a machine that is not saved. what: names it."""

    what: str
    reason: str


class Machine:
    """A domain of libvirt. element: its XML; name: its own name; disks: those that are saved; left: what is not."""

    def __init__(self, untrusted_xml: bytes) -> None:
        """Damaged if this is not the XML of a domain, or has too much for the metadata of an archive."""
        self.element = safexml.parse(untrusted_xml, safexml.MAX_DEPTH - _ABOVE)
        if self.element.tag != "domain":
            raise Damaged(f"this is not the XML of a domain of libvirt: its root is {names.quoted(self.element.tag)}")
        self.name = self.element.findtext("name", "")
        self.uuid = self.element.findtext("uuid", "").strip()
        self.disks: list[Disk] = []
        self.left: list[Left] = []
        for disk in self.element.findall("devices/disk"):
            self._add(disk)
        self._add_nvram()
        self.left += _from_host(self.element)
        self.left += _devices(self.element)

    @property
    def has_tpm(self) -> bool:
        """Whether it has a TPM whose state is in files."""
        return tpm.has_state(self.element)

    @property
    def targets(self) -> set[str]:
        """The targets of all its disks, saved or not."""
        return {target.get("dev", "") for target in self.element.iterfind("devices/disk/target")}

    @property
    def has_agent(self) -> bool:
        """Whether it has a channel for a guest agent."""
        return self.element.find(f"devices/channel/target[@name='{_AGENT}']") is not None

    def _add(self, disk: Element) -> None:
        target = _attribute(disk, "target", "dev")
        device, kind = disk.get("device", "disk"), disk.get("type", "")
        what = _described(disk.find("source"), kind)
        if device in _REMOVABLE:
            if what:
                self.left.append(Left(what, f"the medium of a removable drive, {target}"))
        elif disk.find("readonly") is not None:
            self.left.append(Left(what or target, f"a read-only disk, {target}"))
        elif device == "lun" or kind == "nvme":
            self.left.append(Left(what or target, f"a device of the host that is passed through, {target}"))
        elif names.volume_problem(target) is not None or target == NVRAM:
            self.left.append(Left(what or target, f"its target {names.quoted(target)} cannot be the name of a volume"))
        else:
            self.disks.append(_disk(target, disk, kind, what))

    def _add_nvram(self) -> None:
        nvram = self.element.find("os/nvram")
        if nvram is None:
            return
        source = nvram.find("source")
        kind = nvram.get("type", "file")
        path = (nvram.text or "").strip() if source is None else _described(source, kind)
        if not path:
            return
        problem = None if kind in ("file", "block") else f"its kind is {kind}"
        self.disks.append(Disk(NVRAM, kind, nvram.get("format", RAW), path, problem=problem))


def _disk(target: str, disk: Element, kind: str, what: str) -> Disk:
    form = _attribute(disk, "driver", "type") or RAW
    source = disk.find("source")
    problem = None
    if source is None or not what:
        problem = "it has no source"
    elif source.find("slices") is not None:
        problem = "it is only a part of its file"
    elif kind == "volume":
        return Disk(target, kind, form, source.get("volume", ""), source.get("pool", ""))
    elif kind not in ("file", "block"):
        problem = f"its kind is {kind}"
    return Disk(target, kind, form, what, problem=problem)


def _attribute(element: Element, child: str, name: str) -> str:
    found = element.find(child)
    return "" if found is None else found.get(name, "")


def _described(source: Element | None, kind: str) -> str:
    """Text that names the source of a disk: its path where it has one; empty if there is none."""
    if source is None:
        return ""
    for name in ("file", "dev", "dir"):
        if source.get(name):
            return source.get(name, "")
    words = [source.get(name, "") for name in ("pool", "volume", "protocol", "name")]
    return " ".join([kind, *filter(None, words)]) if any(words) or len(source) else ""


def _from_host(domain: Element) -> Iterator[Left]:
    """Files that belong to the host, and that the machine needs to start."""
    for name in _FROM_HOST:
        path = domain.findtext(f"os/{name}", "").strip()
        if path:
            yield Left(path, f"the {name} of the machine is a file of the host")


def _devices(domain: Element) -> Iterator[Left]:
    """Devices and directories of the host that the machine uses, and memory that keeps its content."""
    for device in domain.findall("devices/hostdev"):
        yield Left(_host_device(device), "a device of the host that is passed through")
    for interface in domain.findall("devices/interface[@type='hostdev']"):
        yield Left(_host_device(interface), "a network device of the host that is passed through")
    for backend in domain.findall("devices/tpm/backend[@type='passthrough']"):
        what = _attribute(backend, "device", "path") or "the TPM of the host"
        yield Left(what, "a device of the host that is passed through")
    for shared in domain.findall("devices/filesystem"):
        what = _described(shared.find("source"), shared.get("type", "")) or "a shared file system"
        yield Left(what, "a directory of the host that is shared with the machine")
    for memory in domain.findall("devices/memory"):
        path = memory.findtext("source/path", "").strip()
        if path:
            yield Left(path, "memory that keeps its content")


def _host_device(device: Element) -> str:
    """Text that names a device: its kind, and all attributes of its source."""
    source = device.find("source")
    words = [device.get("type", ""), device.get("mode", "")]
    if source is not None:
        words += [value for part in source.iter() for value in part.attrib.values()]
    return " ".join(filter(None, words)) or "a device"
