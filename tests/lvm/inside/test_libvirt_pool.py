"""New volumes in a storage pool of libvirt that is a volume group: a real libvirtd makes them and removes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from libvirtd import Libvirt
from lvm import guest
from lvm.filling import good, holds, volwrite
from lvm.guest import MiB
from support import missing

from qbtools.errors import Refused
from qbtools.hosts.libvirt.facts import Facts
from qbtools.hosts.libvirt.images import Images
from qbtools.hosts.libvirt.poolvolumes import PoolVolumes
from qbtools.hosts.libvirt.virsh import Virsh
from qbtools.volumes.marks import Mark

DRIVERS = ["libvirt_driver_qemu.so", "libvirt_driver_storage.so"]
OLD = Mark.own()._replace(start=1)


@pytest.fixture
def virsh(vg: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Virsh]:
    """libvirt with the pool `pool` in the group."""
    found = [path for name in DRIVERS for path in Path("/usr").glob(f"lib*/**/libvirt/connection-driver/{name}")]
    if len(found) != len(DRIVERS):
        missing("libvirtd is not there")
    (tmp_path / "drivers").mkdir()
    for path in found:  # it takes long to load, and others need libraries that this guest does not have
        (tmp_path / "drivers" / path.name).symlink_to(path)
    monkeypatch.setenv("LIBVIRT_DRIVER_DIR", str(tmp_path / "drivers"))
    host = Libvirt(guest.PLACE / f"libvirt-{vg}")
    host.start()
    try:
        host.virsh("pool-create-as", "pool", "logical", f"--source-name={vg}")
        yield Virsh(host.uri)
    finally:
        host.stop()


def test_volumes_are_made_filled_and_removed(vg: str, virsh: Virsh, tmp_path: Path) -> None:
    """One that is filled, and one to which nothing is written: it does not show what was there before."""
    guest.write(guest.thick(f"{vg}/old", 24 * MiB), 0, b"\xff" * (24 * MiB))
    guest.remove(f"{vg}/old")
    paths = {("work", name): f"/dev/{vg}/work-{name}" for name in ("vda", "vdb")}
    images = Images(str(tmp_path), paths, PoolVolumes(virsh, Facts(virsh)))
    images.make("work", [("vda", 6 * MiB), ("vdb", 5 * MiB)], OLD)
    assert images.target("work", "vda") == f"lvm:/dev/{vg}/work-vda"
    data = os.urandom(9 * MiB)  # more than it has room for: it is extended
    good(volwrite("-q", "--raw", "--overwrite", "--shrink", images.target("work", "vda"), data=data))
    images.complete("work", ["vda", "vdb"])
    assert holds(Path(paths["work", "vda"]), 12 * MiB, {0: data})
    assert holds(Path(paths["work", "vdb"]), 8 * MiB, {})
    assert {name: found.size for name, found in images.found("work", ["vda", "vdb"]).items()} == {
        "vda": 12 * MiB,
        "vdb": 8 * MiB,
    }
    with Path(paths["work", "vda"]).open("rb"), pytest.raises(Refused, match="work-vda is in use: "):
        images.refuse_used("work", ["vda", "vdb"])
    guest.remove(f"{vg}/work-vdb")
    guest.thick(f"{vg}/work-vdb", MiB)  # that of somebody else
    images.drop("work")
    assert [name for name in guest.volumes(vg) if name.startswith("work-")] == ["work-vdb"] and images.strays() == []
    with pytest.raises(Refused, match="work-vdb already exists, but no domain that is being restored has it"):
        images.check("work", ["vdb"])
    guest.remove(f"{vg}/work-vdb")
