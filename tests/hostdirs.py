"""Hosts that are directories, for tests: a qubes.xml and an image for each volume, made from a few words."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, fromstring, tostring

LABELS = ("red", "orange", "yellow", "green", "gray", "blue", "purple", "black")

# What a volume of each name is, by class: whether it is saved, and whether it is a copy of the template's.
_SAVED = {
    "TemplateVM": ("root", "private"),
    "StandaloneVM": ("root", "private"),
    "AppVM": ("private",),
    "DispVM": (),
}


@dataclass
class Machine:
    """One domain. data: by the name of each volume that is saved its content, then holes up to size."""

    name: str
    kind: str = "StandaloneVM"
    properties: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, bytes] = field(default_factory=dict)
    size: int = 1 << 20
    files: Mapping[str, bytes] = field(default_factory=dict)

    def volumes(self) -> tuple[str, ...]:
        return _SAVED[self.kind]


def make_host(place: Path, machines: Sequence[Machine], **defaults: str) -> Path:
    """A host of these machines; defaults are properties of the whole, such as default_template."""
    place.mkdir()
    root = Element("qubes")
    labels = SubElement(root, "labels")
    for number, label in enumerate(LABELS, 1):
        SubElement(labels, "label", id=f"label-{number}", color="0x000000").text = label
    SubElement(SubElement(root, "pools"), "pool", name="vm-pool", driver="file", dir_path="/srv")
    _table(root, "property", defaults)
    domains = SubElement(root, "domains")
    admin = SubElement(domains, "domain", {"id": "domain-0", "class": "AdminVM"})
    _table(admin, "property", {"label": "black"})
    for number, machine in enumerate(machines, 1):
        element = SubElement(domains, "domain", {"id": f"domain-{number}", "class": machine.kind})
        properties = {"name": machine.name, "qid": str(number), "label": "red", "include_in_backups": "True"}
        _table(element, "property", {**properties, **machine.properties})
        SubElement(element, "features")
        config = SubElement(element, "volume-config")
        for volume in ("root", "private", "volatile"):
            saved = volume in machine.volumes()
            values = {"name": volume, "pool": "vm-pool", "vid": f"vm-pool/{machine.name}/{volume}"}
            flags = {"size": str(machine.size), "rw": "True", "save_on_stop": str(saved), "snap_on_start": "False"}
            if volume == "root" and machine.kind in ("AppVM", "DispVM"):
                flags["snap_on_start"] = "True"
            SubElement(config, "volume", {**values, **flags})
        (place / machine.name).mkdir()
        for volume in machine.volumes():
            fill(place / machine.name / f"{volume}.img", machine.data.get(volume, b""), machine.size)
        for name, content in machine.files.items():
            (place / machine.name / name).write_bytes(content)
    (place / "qubes.xml").write_bytes(tostring(root) + b"\n")
    return place


def fill(path: Path, data: bytes, size: int) -> None:
    """An image with data at its beginning and a hole behind."""
    with path.open("wb") as file:
        file.write(data)
        file.truncate(size)


def _table(parent: Element, tag: str, values: Mapping[str, str]) -> None:
    table = SubElement(parent, "properties")
    for name, text in values.items():
        SubElement(table, tag, name=name).text = text or None


def inventory(place: Path) -> dict[str, Element]:
    """The domains of a host by name, without dom0."""
    root = fromstring((place / "qubes.xml").read_bytes())
    return {prop(element, "name"): element for element in root.findall("domains/domain[@id!='domain-0']")}


def prop(domain: Element, name: str) -> str:
    """The text of a property; "" if it is missing."""
    found = domain.find(f"properties/property[@name='{name}']")
    return "" if found is None else found.text or ""


def unfinished(place: Path) -> set[str]:
    """The domains with the mark of a restore."""
    path = "features/feature[@name='qbtools-unfinished']"
    return {name for name, element in inventory(place).items() if element.find(path) is not None}


def images(place: Path) -> dict[str, bytes]:
    """The content of all images, without the zeros at their ends: what is compared with it must not end in zeros."""
    return {
        str(path.relative_to(place)): path.read_bytes().rstrip(b"\0")
        for path in sorted(place.rglob("*.img"))
        if not path.name.startswith(".") and path.is_file()
    }


def noise(name: str, size: int = 100_000) -> bytes:
    """Data that does not compress; it begins with the name of its owner, and does not end in zeros."""
    return name.encode() + b" " + os.urandom(size) + b"\x01"


def not_restored(name: str) -> str:
    """The warning of a restore to a host without --files-to. name: of what it does not restore, and more about it."""
    return f"qb-backup: warning: not restored without --files-to: {name}\n"
