"""What this host has for a machine: emulators, machine types, processors, networks and storage pools."""

from __future__ import annotations

import os
from functools import cached_property
from xml.etree.ElementTree import Element

from qbtools.domains import safexml
from qbtools.hosts.libvirt.virsh import Virsh

IMAGES = "/var/lib/libvirt/images"
"""The directory for new volumes if there is no storage pool."""

DEFAULT = "default"
"""How libvirt calls the pool and the network that it creates itself."""

_DIRECTORIES = ("dir", "fs", "netfs")  # types of pools whose volumes are files in a directory


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
    def pools(self) -> dict[str, str]:
        """The directories of its active storage pools that are directories, the default pool first."""
        found = {}
        for name in sorted(self._virsh.pools(), key=lambda name: (name != DEFAULT, name)):
            pool = safexml.parse(self._virsh.pool_xml(name))
            path = pool.findtext("target/path", "")
            if pool.get("type") in _DIRECTORIES and path.startswith("/"):
                found[name] = path
        return found
