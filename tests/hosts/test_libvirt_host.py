"""The host of libvirt keeps the protocol of hosts, with a real libvirtd."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts.protocol import Place, Protocol
from libvirtd import Libvirt


class TestLibvirt(Protocol):
    kills = 2
    together = 2

    @pytest.fixture
    def place(self, libvirt: Libvirt) -> Iterator[Place]:
        with tempfile.TemporaryDirectory(prefix="qb-") as short:
            images = Path(short, "images")
            images.mkdir()
            settings = f"QB_LIBVIRT_DIR={short}/state", f"QB_LIBVIRT_POOL={images}"
            found = Place("env", *settings, "qb-host-libvirt", libvirt.uri)
            yield found
            found.clean()
            for uuid in libvirt.uuids():
                for disk in libvirt.virsh("domblklist", uuid, "--details").splitlines():
                    Path(disk.split()[-1]).unlink()
            assert list(images.iterdir()) == []
