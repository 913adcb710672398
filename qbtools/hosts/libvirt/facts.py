"""What this host has for a machine: emulators, machine types, processors, networks and storage pools."""

from __future__ import annotations

import os
from functools import cached_property
from xml.etree.ElementTree import Element

from qbtools.domains import safexml
from qbtools.hosts.libvirt.virsh import Virsh
from qbtools.lean import NamedTuple

IMAGES = "/var/lib/libvirt/images"
"""The directory for new volumes if there is no storage pool."""

DEFAULT = "default"
"""How libvirt calls the pool and the network that it creates itself."""

LOGICAL = "logical"
"""The type of a pool that is a volume group."""

_DIRECTORIES = ("dir", "fs", "netfs")  # types of pools whose volumes are files in a directory
_DEVICES = (LOGICAL, "zfs")  # those whose volumes are block devices, which only libvirt makes


class Pool(NamedTuple):
    """An active storage pool. path: the directory of its volumes or their devices; uuid: for virsh."""

    kind: str
    path: str
    uuid: str

    @property
    def devices(self) -> bool:
        """Whether its volumes are block devices."""
        return self.kind in _DEVICES


class Facts:
    """Each is asked for when it is needed. All: Failed or Damaged if libvirt fails or prints something unexpected."""

    def __init__(self, virsh: Virsh) -> None:
        self._virsh = virsh
        self._domains: dict[tuple[str, str], Element] = {}

    @cached_property
    def _capabilities(self) -> Element:
        return safexml.parse(self._virsh.capabilities())

    @cached_property
    def arch(self) -> str:
        """The architecture of this machine."""
        return self._capabilities.findtext("host/cpu/arch", "").strip()

    def guest(self, arch: str) -> Element | None:
        """The guests of an architecture that this host can run; None if it can run none."""
        for found in self._capabilities.findall("guest"):
            inner = found.find("arch")
            if found.findtext("os_type", "").strip() == "hvm" and inner is not None and inner.get("name") == arch:
                return inner
        return None

    def has_emulator(self, path: str) -> bool:
        """Whether libvirt uses this program for guests of any architecture."""
        return any(path == (one.text or "").strip() for one in self._capabilities.iterfind("guest/arch/emulator"))

    def has_kvm(self, arch: str) -> bool:
        """Whether it runs guests of that architecture without emulation."""
        guest = self.guest(arch)
        return guest is not None and guest.find("domain[@type='kvm']") is not None

    def has_machine(self, arch: str, kind: str) -> bool:
        """Whether the emulator for that architecture has this type of machine."""
        guest = self.guest(arch)
        return guest is not None and any(
            kind in ((one.text or "").strip(), one.get("canonical")) for one in guest.iterfind(".//machine")
        )

    def domain(self, arch: str, kind: str) -> Element:
        """What the emulator can do for a domain of this kind, kvm or qemu."""
        found = self._domains.get((arch, kind))
        if found is None:
            found = safexml.parse(self._virsh.domain_capabilities(arch, kind))
            self._domains[arch, kind] = found
        return found

    @cached_property
    def networks(self) -> list[str]:
        """The names of its networks, whether they run or not."""
        return self._virsh.networks()

    @staticmethod
    def has_bridge(name: str) -> bool:
        """Whether there is a network bridge with that name."""
        return bool(name) and "/" not in name and os.path.isdir(f"/sys/class/net/{name}/bridge")

    @cached_property
    def pools(self) -> dict[str, Pool]:
        """Its active storage pools that can have new volumes: the default pool first, then directories."""
        found = {}
        for name in self._virsh.pools():
            xml = safexml.parse(self._virsh.pool_xml(name))
            texts = (xml.findtext("target/path", ""), xml.findtext("uuid", "").strip())
            pool = Pool(xml.get("type", ""), *texts)
            if pool.kind in (*_DIRECTORIES, *_DEVICES) and pool.path.startswith("/"):
                found[name] = pool
        return dict(sorted(found.items(), key=lambda pair: (pair[0] != DEFAULT, pair[1].devices, pair[0])))
