"""Checkpoints of libvirt. From a checkpoint on, a bitmap in each qcow2 image marks what the machine writes.

A backup job makes one, so its bitmaps begin at the point in time that is read. A later job exports them, and they tell
what has changed since. libvirt refuses a bitmap that it has lost, such as after a crash of qemu. It does not notice an
image that was exchanged for that of another disk of the machine, which has bitmaps with the same names. So the
description of a checkpoint tells which files the image of each disk was.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from qbtools.domains import safexml
from qbtools.errors import Failed, QbError, UsageError, naming
from qbtools.hosts.libvirt.virsh import Virsh
from qbtools.lean import NamedTuple
from qbtools.volumes.marks import Kept

_FORM = "qcow2"
_BACKING = "backingStore"
_DEEPEST = 200  # levels of the XML of a chain of images
_LOST = re.compile(r"bitmap '.*' not found in backing chain of '(.*)'")


class Wish(NamedTuple):
    """The names of a checkpoint to make, and of the one that tells what has changed since; empty for none."""

    name: str = ""
    base: str = ""


def wished(environ: Mapping[str, str]) -> Wish:
    """What an environment asks for. UsageError if a name is not one of qbtools."""
    wish = Wish(environ.get("QB_CHECKPOINT", ""), environ.get("QB_CHECKPOINT_BASE", ""))
    for name in wish:
        if name and Kept.parse(name) is None:
            raise UsageError(f"{name} is not the name of a checkpoint of qbtools")
    return wish


class Plan(NamedTuple):
    """What a backup job does with checkpoints. images: of the disks that get a bitmap, by disk; see _images().

    name: of the checkpoint to make, empty for none. base: the older one. since: the disks whose bitmaps of it are
    exported. reasons: why other disks are read whole. problem: why no checkpoint could be made.
    """

    name: str
    base: str
    images: Mapping[str, str]
    since: Sequence[str]
    reasons: Mapping[str, str]
    problem: str = ""

    def less(self, problem: str) -> Plan | None:
        """What may work if libvirt has refused this; None if it has nothing to do with checkpoints."""
        if self.since:
            return self._replace(since=(), reasons={**self.reasons, **dict.fromkeys(self.since, problem)})
        return self._replace(name="", problem=problem) if self.name else None

    def to_xml(self, targets: Sequence[str]) -> bytes:
        """The XML of the checkpoint. targets: all disks of the machine."""
        root = Element("domaincheckpoint")
        SubElement(root, "name").text = self.name
        SubElement(root, "description").text = " ".join(f"{disk}={image}" for disk, image in self.images.items())
        disks = SubElement(root, "disks")
        for target in targets:
            SubElement(disks, "disk", name=target, checkpoint="bitmap" if target in self.images else "no")
        return tostring(root)


def plan(virsh: Virsh, uuid: str, disks: Sequence[str], wish: Wish) -> Plan:
    """What a backup job of a machine that runs can do with checkpoints."""
    if not wish.name and not wish.base:
        return Plan("", "", {}, (), {})
    try:
        return _plan(virsh, uuid, disks, wish)
    except QbError as error:
        return Plan("", "", {}, (), dict.fromkeys(disks, error.message), error.message)


def _plan(virsh: Virsh, uuid: str, disks: Sequence[str], wish: Wish) -> Plan:
    images, reasons = _images(virsh.live_xml(uuid), disks)
    since: list[str] = []
    if not wish.base:
        reasons |= dict.fromkeys(images, "no checkpoint of its last state is kept")
    else:
        before = _described(virsh.checkpoint(uuid, wish.base))
        for disk, image in images.items():
            if before is None:
                reasons[disk] = "libvirt has no checkpoint of its last state"
            elif disk not in before:
                reasons[disk] = "the checkpoint of its last state has no bitmap of it"
            elif before[disk] != image:
                reasons[disk] = "its image is another one than at its last state"
            else:
                since.append(disk)
    return Plan(wish.name if images else "", wish.base, images, since, reasons)


def remove(virsh: Virsh, uuid: str, name: str) -> bool:
    """Removes a checkpoint of a domain. Returns whether it is gone: libvirt only does it while the machine runs.

    Failed.
    """
    xml = virsh.checkpoint(uuid, name)
    if xml is None:
        return True
    if uuid not in virsh.running():
        return False
    root = safexml.parse(xml, _DEEPEST)
    while True:
        try:
            virsh.delete_checkpoint(uuid, name)
            return True
        except Failed as error:
            lost = _LOST.search(error.message)
            bitmap = None if lost is None else root.find(f"disks/disk[@name='{lost[1]}'][@checkpoint='bitmap']")
            if bitmap is None:
                raise
            for key in [key for key in bitmap.attrib if key != "name"]:
                del bitmap.attrib[key]
            bitmap.set("checkpoint", "no")
            virsh.redefine_checkpoint(uuid, tostring(root))


def foreign(virsh: Virsh, uuid: str) -> bool:
    """Whether a domain has a checkpoint that is not ours. Failed."""
    return any(Kept.parse(name) is None for name in virsh.checkpoints(uuid))


def _described(xml: bytes | None) -> dict[str, str] | None:
    """The images in the description of a checkpoint, by disk; None if there is no checkpoint."""
    if xml is None:
        return None
    root = safexml.parse(xml, _DEEPEST)
    pairs = (word.partition("=") for word in root.findtext("description", "").split())
    return {disk: image for disk, _, image in pairs}


def _images(xml: bytes, disks: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Text that is different if the image of a disk is another one, by disk; and why others have no bitmaps."""
    images, reasons = {}, dict.fromkeys(disks, "libvirt does not list it")
    for disk in safexml.parse(xml, _DEEPEST).findall("devices/disk"):
        target, driver = disk.find("target"), disk.find("driver")
        name = "" if target is None else target.get("dev", "")
        if name not in reasons:
            continue
        form = "raw" if driver is None else driver.get("type", "raw")
        try:
            if form != _FORM:
                raise Failed(f"a disk of the format {form} has no bitmap")
            images[name] = hashlib.sha256("\n".join(_files(disk)).encode("utf-8", "surrogateescape")).hexdigest()
            del reasons[name]
        except QbError as error:
            reasons[name] = error.message
    return images, reasons


def _files(disk: Element) -> Iterator[str]:
    """Text about each file of an image. Failed if there is another one than files, because it may change unnoticed.

    A number of a file alone could be that of another one on another file system. Backing files must not change.
    """
    layer: Element | None = disk
    kind = disk.get("type", "")
    while layer is not None and (layer is disk or len(layer)):
        source = layer.find("source")
        path = "" if source is None else source.get("file", "")
        if kind != "file" or not path:
            raise Failed("its image is not a file, or has a backing file that is none")
        with naming(f"look at {path}"):
            found = os.stat(path)
            facts = [found.st_ino, os.statvfs(path).f_fsid]
        if layer is not disk:
            facts += [found.st_size, found.st_mtime_ns]
        yield f"{path}\t{facts}"
        layer = layer.find(_BACKING)
        kind = "" if layer is None else layer.get("type", "")
    if layer is None:
        raise Failed("libvirt does not tell the backing files of its image")
