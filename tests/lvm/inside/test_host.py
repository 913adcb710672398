"""qb-host-lvm keeps the protocol of hosts, and qb-backup saves and restores machines of a pool."""

from __future__ import annotations

import os
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hosts.protocol import PREFIX, MiB, Place, Protocol
from lvm import guest
from lvm.filling import holds
from support import bash

from qbtools.domains.names import UNFINISHED
from qbtools.volumes.marks import Mark


class ForkedPlace(Place):
    """The host, forked from here: the start of an interpreter takes long in the guest."""

    def __init__(self, *argv: str, **environment: str) -> None:
        super().__init__(*argv)
        self.environment = environment
        self._group = argv[-1].split("/")[0]
        self._metadata = Path(environment["QB_LVM_HOSTS"])

    def run(self, *words: str, data: bytes = b"") -> tuple[int, bytes, str]:
        ended = guest.program(*words, data=data, **self.environment)
        return ended.status, ended.stdout, ended.stderr

    def killed(self, seconds: float, *words: str, data: bytes = b"") -> None:
        """Not after so many seconds: as soon as a volume has come or gone. Before that, there is nothing to be left."""
        before = self._devices()
        with guest.Program(*self.argv, *words, data=data, **self.environment) as running:
            while self._devices() == before:
                assert os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
                time.sleep(0.01)
            running.kill()
            running.wait()
            session = str(running.pid)
        until = time.monotonic() + 60
        while session in map(_session, filter(str.isdigit, os.listdir("/proc"))):  # lvm goes on where it was begun
            assert time.monotonic() < until
            time.sleep(0.05)

    def _devices(self) -> list[str]:
        return [name for name in os.listdir("/dev/mapper") if name.startswith(f"{self._group}-vm--")]

    def state(self) -> object:
        """What the verb inventory prints, read where it comes from, and the volumes."""
        files = {path: path.read_bytes() for path in self._metadata.rglob("qubes.xml")}
        return files, sorted(self._devices())

    def clean(self) -> None:
        """Finished domains too, and whatever a failed test has left. Asks no host, whose verbs are tested elsewhere."""
        for path in self._metadata.rglob("qubes.xml"):
            path.unlink()
        names = [name for name in guest.volumes(self._group) if name.startswith(f"vm-{PREFIX}")]
        if names:
            guest.remove(*(f"{self._group}/{name}" for name in names))


def _session(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3]
    except OSError:
        return ""


@pytest.fixture
def place(vg: str, tmp_path: Path) -> Iterator[ForkedPlace]:
    (tmp_path / "state").mkdir()
    yield ForkedPlace("qb-host-lvm", f"{vg}/pool", QB_LVM_HOSTS=str(tmp_path / "state"))


class TestHostLvm(Protocol):
    """All but what qb-host-dir does with the same code, before it comes to volumes: programs take long here."""

    kills, together = 1, 2
    test_verbs = test_what_is_there = test_no_document = test_set_replaces_all_but_the_volumes = None  # type: ignore
    test_a_name_that_is_taken = test_what_is_finished_is_not_touched = None  # type: ignore
    test_remove_only_what_bears_the_mark = None  # type: ignore


def volume_names(vg: str) -> set[str]:
    return {name for name in guest.volumes(vg) if name.startswith("vm-")}


def test_what_a_killed_run_has_left_is_known_by_its_tag(place: ForkedPlace, vg: str) -> None:
    """A stray of a dead run goes with the next change; one that nobody marked is never touched."""
    dead = str(Mark.own()).rsplit("-", 1)[0] + "-1"
    for name, tags in {
        "vm-qbtest-old-root": ["--addtag", f"qbtools-unfinished:qbtest-old:{dead}"],
        "vm-qbtest-mine-root": [],
    }.items():
        guest.lvm("lvcreate", "-qq", "-y", "-kn", "-V", "4M", "--thinpool", "pool", *tags, "-n", name, vg)
    status, _, err = place.ask("create", data=place.document("mine", {"root": MiB}))
    assert status == 5
    assert f"{vg}/vm-qbtest-mine-root already exists, but no domain has it" in err
    assert volume_names(vg) == {"vm-qbtest-mine-root"}
    place.clean()


def test_a_machine_that_runs(place: ForkedPlace, vg: str) -> None:
    """It is seen by its -snap, or by its device being open, and is not removed."""
    place.create("run", private=MiB)
    name = f"{vg}/vm-qbtest-run-private"
    assert not place.volumes("run")["private"].running
    with Path(f"/dev/{name}").open("rb"):
        assert place.volumes("run")["private"].running
    guest.lvm("lvcreate", "-qq", "-y", "-s", "-kn", "-n", "vm-qbtest-run-private-snap", name)
    assert place.volumes("run")["private"].running
    place.bad("remove", "qbtest-run")
    status, _, err = place.ask("remove", "qbtest-run")
    assert status == 5 and f"its machine writes to {name}-snap" in err
    guest.remove(f"{name}-snap")
    assert place.ask("remove", "qbtest-run") == (0, b"", "")
    assert not volume_names(vg)
    place.clean()


def test_no_such_pool(place: ForkedPlace, vg: str) -> None:
    guest.thin(f"{vg}/nopool", MiB)
    for word, status in {f"{vg}/nopool": 1, f"{vg}/none": 1, "pool": 2, f"{vg}/pool/x": 2}.items():
        assert place.run("qb-host-lvm", word, "inventory")[0] == status
    guest.remove(f"{vg}/nopool")


def backup(text: str, place: ForkedPlace, tmp_path: Path) -> bytes:
    """Runs qb-backup in a line of bash; what it prints. It says nothing."""
    (tmp_path / "passphrase").write_text("secret\n")
    (tmp_path / "passphrase").chmod(0o600)
    done = bash(
        text,
        timeout=1800,
        QB_LVM_HOSTS=place.environment["QB_LVM_HOSTS"],
        QB_PASSPHRASE_FILE=str(tmp_path / "passphrase"),
        LVM_SYSTEM_DIR=os.environ["LVM_SYSTEM_DIR"],
        TMPDIR=str(tmp_path),
        XDG_RUNTIME_DIR=str(tmp_path),
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def test_a_machine_is_saved_from_the_pool_and_restored_to_it(
    place: ForkedPlace, vg: str, tmp_path: Path, crossing: str | None, record_property: Callable[[str, object], None]
) -> None:
    """Whole runs of qb-backup. An archive from outside takes this way too; it is known there what comes out.

    Of one volume, because every program that starts takes long here. Machines with several are those of other hosts.
    """
    if crossing is None:
        save_and_restore(place, vg, tmp_path)
    else:
        new = backup(
            f"qb-backup restore -q --yes --host lvm:{vg}/pool {crossing} && "
            f"qb-backup create -q --logn=10 --host lvm:{vg}/pool",
            place,
            tmp_path,
        )
        assert volume_names(vg) == {f"vm-{PREFIX}crossing-vda"}
        record_property("archive", b64encode(new).decode())
    place.clean()


def save_and_restore(place: ForkedPlace, vg: str, tmp_path: Path) -> None:
    """At the same time: what is in the volume is in that of the new machine."""
    data = b"private" + os.urandom(MiB)
    target = place.create("work", private=4 * MiB)["private"]
    assert place.run("qb-volwrite", "--raw", "--overwrite", "-q", target, data=data) == (0, b"", "")
    place.finish("work")
    machines = [f"{PREFIX}work", f"{PREFIX}play"]
    printed = backup(
        f"qb-backup create -q --logn=10 --compress=none --host lvm:{vg}/pool"
        f" | qb-backup restore -q --yes --host lvm:{vg}/pool --rename {'='.join(machines)}",
        place,
        tmp_path,
    )
    assert printed == b""
    assert volume_names(vg) == {f"vm-{machine}-private" for machine in machines}
    for machine in machines:
        assert holds(Path(f"/dev/{vg}/vm-{machine}-private"), 4 * MiB, {0: data})
    inventory = place.inventory()
    assert {domain.name for domain in inventory.domains} == {"dom0", *machines}
    assert not [machine for machine in machines if UNFINISHED in inventory.by_name[machine].features]
