"""Devices in the XML of a machine that is restored: the disks that are its new volumes, and its network cards."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement

from qbtools.domains import safexml
from qbtools.errors import Refused
from qbtools.hosts.libvirt.facts import DEFAULT, Facts
from qbtools.lean import NamedTuple

_TARGET = re.compile(r"(vd|sd|hd)[a-z]{1,2}")
_BUSES = {"vd": "virtio", "sd": "sata", "hd": "sata"}


class NewDisk(NamedTuple):
    """A new volume of a machine. form: raw or qcow2; device: it is a block device, and so raw."""

    name: str
    path: str
    form: str
    device: bool = False


def set_network(interface: Element, facts: Facts) -> str:
    """Makes it an interface in the default network, or of the emulator's own network. Returns its name."""
    for source in interface.findall("source"):
        interface.remove(source)
    if DEFAULT in facts.networks:
        interface.set("type", "network")
        SubElement(interface, "source", network=DEFAULT)
    else:
        interface.set("type", "user")
    if interface.find("model") is None:
        SubElement(interface, "model", type="virtio")
    return f"the network {DEFAULT}" if DEFAULT in facts.networks else "the network of the emulator"


def add_disks(root: Element, disks: Sequence[NewDisk]) -> None:
    """Adds disks that the XML does not have."""
    devices = safexml.child(root, "devices")
    taken = {target.get("dev") for target in devices.iterfind("disk/target")}
    taken |= {disk.name for disk in disks if _TARGET.fullmatch(disk.name)}
    free = (name for letter in "abcdefghijklmnopqrstuvwxyz" if (name := f"vd{letter}") not in taken)
    for disk in disks:
        name = disk.name if _TARGET.fullmatch(disk.name) else next(free, "")
        if not name:
            raise Refused("the machine has too many volumes")
        element = SubElement(devices, "disk", device="disk")
        SubElement(element, "target", dev=name, bus=_BUSES[name[:2]])
        fill(element, disk)


def fill(element: Element, disk: NewDisk) -> None:
    """Makes an element of a disk that of this volume."""
    element.set("type", "block" if disk.device else "file")
    driver = element.find("driver")
    if driver is None:
        driver = Element("driver")
        element.insert(0, driver)
    driver.set("name", "qemu")
    driver.set("type", disk.form)
    element.insert(1, Element("source", {"dev" if disk.device else "file": disk.path}))
