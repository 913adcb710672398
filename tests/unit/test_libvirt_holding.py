"""Which machines of libvirt are held, with a virsh that prints what a test says."""

from __future__ import annotations

import os
import tempfile

import pytest

from qbtools.errors import Refused
from qbtools.hosts.libvirt.checkpoints import Wish
from qbtools.hosts.libvirt.holding import Holds
from qbtools.hosts.libvirt.machine import Machine
from qbtools.hosts.libvirt.virsh import Virsh
from qbtools.volumes.marks import Mark

MACHINE = Machine(b"<domain type='kvm'><name>work</name><devices/></domain>")
UUID = "00000000-0000-4000-8000-000000000000"


class FakeVirsh(Virsh):
    def __init__(self, state: str, job: str) -> None:
        super().__init__("qemu:///system")
        self.answers = {"domstate": state, "domjobinfo": job, "list": UUID}
        self.calls: list[str] = []

    def _run(self, *words: str, data: bytes = b"", patience: float = 60) -> bytes:
        self.calls.append(words[0])
        return self.answers.get(words[0], "").encode()


@pytest.mark.parametrize(
    ("state", "job", "said"),
    [
        ("crashed (panicked)", "None", "its state is crashed (panicked)"),
        ("paused (migrating)", "None", "its state is paused (migrating)"),
        ("running (migrating)", "None", "its state is running (migrating)"),
        ("in shutdown (being shut down)", "None", "its state is in shutdown"),
        ("pmsuspended (disk)", "None", "its state is pmsuspended"),
        ("shut off (shutdown)", "None", "its state is shut off"),
        (
            "running (booted)",
            "Unbounded\nOperation: Outgoing migration",
            "does another job with it: Outgoing migration",
        ),
        ("running (booted)", "Unbounded\nOperation: Backup", "does another job with it: Backup"),
        ("paused (user)", "Bounded", "does another job with it: Bounded"),
    ],
)
def test_a_machine_that_cannot_be_held(state: str, job: str, said: str) -> None:
    virsh = FakeVirsh(state, f"Job type: {job}")
    with tempfile.TemporaryDirectory(prefix="qb-") as place:  # a short name: the path of a socket has at most 107 bytes
        with pytest.raises(Refused) as found:
            Holds(virsh, place, print).begin("work", UUID, MACHINE, str(Mark.own()), Wish())
        assert os.listdir(place) == ["lock"] and "backup-begin" not in virsh.calls
    assert found.value.message.startswith("work cannot be saved now: ") and said in found.value.message


def test_a_disk_that_is_only_attached_now() -> None:
    """The persistent XML, which is saved, does not have it."""
    virsh, said = FakeVirsh("running (booted)", "Job type: None"), list[str]()
    virsh.answers["domblklist"] = " file disk vda /a\n file disk vdb /b\n file cdrom sda /c\n"
    devices = "<disk device='disk'><target dev='vda'/><readonly/></disk><disk device='cdrom'><target dev='sda'/></disk>"
    machine = Machine(f"<domain type='kvm'><name>work</name><devices>{devices}</devices></domain>".encode())
    with tempfile.TemporaryDirectory(prefix="qb-") as place:
        assert Holds(virsh, place, said.append).begin("work", UUID, machine, str(Mark.own()), Wish()) == {}
    assert said == ["work has the disk vdb only until it is shut down: it is not saved"]
