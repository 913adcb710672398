"""Volumes that go to another host, and to another kind, by whole pipes of real programs as the manual shows them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from lvm import guest
from lvm.filling import holds, used
from lvm.guest import MiB
from manual import examples
from sshhost import SshHost
from support import bash, environment

PATTERN = os.urandom(MiB)
SIZE = 24 * MiB
LVM = {"LVM_SYSTEM_DIR": os.environ.get("LVM_SYSTEM_DIR", "")}


@pytest.fixture(scope="module")
def vm1(vg: str) -> Iterator[str]:
    """A thin volume of 24 MiB with one MiB of data."""
    guest.write(guest.thin(f"{vg}/vm1", SIZE), 4 * MiB, PATTERN)
    yield f"{vg}/vm1"
    guest.remove(f"{vg}/vm1")


def test_a_clone_on_another_host(vg: str, vm1: str, tmp_path: Path) -> None:
    """Sparse, in one pipe, and with its own name only when all of it has arrived."""
    text = examples("qbtools.7")["clone"].replace("ssh host", "ssh store").replace(" vg/", f" {vg}/")
    text = text.replace("lvm:vg/pool/vm1", f"lvm:{vg}/pool/clone")
    before = used(f"{vg}/pool")
    with SshHost(tmp_path, **LVM) as host:
        done = bash(text, PATH=f"{host.programs}:{environment()['PATH']}", **LVM)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert used(f"{vg}/pool") <= before + 2
    assert holds(Path(f"/dev/{vg}/clone"), SIZE, {4 * MiB: PATTERN})
    guest.remove(f"{vg}/clone")


def test_a_backup_of_a_volume_restored_into_a_pool(vg: str, vm1: str) -> None:
    """The size comes with the volume; nobody else has to know it."""
    text = (
        "export QB_PASSPHRASE_COMMAND='echo secret'; qb-backup create -q --logn=10 --compress=none"
        f" w:private=lvm:{vm1} | qb-backup restore -q --pool lvm:{vg}/pool"
    )
    done = bash(text, timeout=300, **LVM)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert holds(Path(f"/dev/{vg}/w-private"), SIZE, {4 * MiB: PATTERN})
    guest.remove(f"{vg}/w-private")
