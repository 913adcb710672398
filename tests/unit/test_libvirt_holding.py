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
        self._answers = {"domstate": state, "domjobinfo": job, "list": UUID}
        self.calls: list[str] = []

    def _run(self, *words: str, data: bytes = b"", patience: float = 60) -> bytes:
        self.calls.append(words[0])
        return self._answers.get(words[0], "").encode()


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
