"""qb-host-lvm keeps the protocol of hosts, and an archive of a directory is restored to a pool, and back."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts.protocol import PREFIX, MiB, Place, Protocol
from lvm import guest

from qbtools.volumes.marks import Mark


class ForkedPlace(Place):
    """The host, forked from here: the start of an interpreter takes long in the guest."""

    def __init__(self, *argv: str, **environment: str) -> None:
        super().__init__(*argv)
        self.environment = environment

    def run(self, *words: str, data: bytes = b"") -> tuple[int, bytes, str]:
        ended = guest.program(*words, data=data, **self.environment)
        return ended.status, ended.stdout, ended.stderr

    def killed(self, seconds: float, *words: str, data: bytes = b"") -> None:
        with guest.Program(*self.argv, *words, data=data, **self.environment) as running:
            time.sleep(seconds)
            running.kill()
            running.wait()
            session = str(running.pid)
        until = time.monotonic() + 60
        while session in map(_session, filter(str.isdigit, os.listdir("/proc"))):  # lvm goes on where it was begun
            assert time.monotonic() < until
            time.sleep(0.05)

    def clean(self) -> None:
        """Finished domains too, so that the next test finds nothing; and whatever a failed test has left."""
        super().clean()
        _, state = self.argv[-1], Path(self.environment["QB_LVM_HOSTS"])
        for path in state.rglob("qubes.xml"):
            path.unlink()
        vg = self.argv[-1].split("/")[0]
        guest.remove(*(f"{vg}/{name}" for name in guest.volumes(vg) if name.startswith(f"vm-{PREFIX}")))


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
    """All but what qb-host-dir does with the same code, and that has no volumes in it: programs take long here."""

    kills = 2
    test_verbs = test_what_is_there = test_no_document = test_set_replaces_all_but_the_volumes = None  # type: ignore


def volume_names(vg: str) -> set[str]:
    return {name for name in guest.volumes(vg) if name.startswith("vm-")}


def test_what_a_killed_run_has_left_is_known_by_its_tag(place: ForkedPlace, vg: str) -> None:
    """A stray of a dead run goes with the next change; one that nobody marked is never touched."""
    dead = str(Mark.own()).rsplit("-", 1)[0] + "-1"
    for name, tags in {
        "vm-qbtest-old-root": ["--addtag", f"qbtools-unfinished:qbtest-old:{dead}"],
        "vm-qbtest-mine-root": [],
    }.items():
        guest.call("lvcreate", "-qq", "-y", "-kn", "-V", "4M", "--thinpool", "pool", *tags, "-n", name, vg)
    status, _, err = place.ask("create", data=place.document("mine", {"root": MiB}))
    assert status == 5
    assert f"{vg}/vm-qbtest-mine-root is there already, though no domain has it" in err
    assert volume_names(vg) == {"vm-qbtest-mine-root"}
    place.clean()


def test_a_machine_that_runs(place: ForkedPlace, vg: str) -> None:
    """It is seen by its -snap, or by its device being open, and is not removed."""
    place.create("run", private=MiB)
    name = f"{vg}/vm-qbtest-run-private"
    assert not place.volumes("run")["private"].running
    with Path(f"/dev/{name}").open("rb"):
        assert place.volumes("run")["private"].running
    guest.call("lvcreate", "-qq", "-y", "-s", "-kn", "-n", "vm-qbtest-run-private-snap", name)
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


def test_from_a_directory_to_a_pool_and_back(vg: str, tmp_path: Path) -> None:
    """Whole runs of qb-backup: what was in the images is in the volumes, and in the images at the other end."""
    from hostdirs import Machine, make_host
    from support import run

    content = {"root": b"root" + os.urandom(MiB), "private": b"private" + os.urandom(MiB)}
    source = make_host(tmp_path / "source", [Machine("work", "StandaloneVM", {}, content, 4 * MiB)])
    (tmp_path / "passphrase").write_text("secret\n")
    (tmp_path / "passphrase").chmod(0o600)
    (tmp_path / "back").mkdir()
    (tmp_path / "state").mkdir()
    variables = {
        "QB_LVM_HOSTS": str(tmp_path / "state"),
        "QB_PASSPHRASE_FILE": str(tmp_path / "passphrase"),
        "LVM_SYSTEM_DIR": os.environ["LVM_SYSTEM_DIR"],
        "TMPDIR": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path),
    }
    pool = f"lvm:{vg}/pool"
    first, second = str(tmp_path / "first.qb"), str(tmp_path / "second.qb")
    for words in (
        ["create", "--logn=10", "--compress=none", "-q", "--host", f"dir:{source}", "-o", first],
        ["restore", "-q", "--yes", "--host", pool, first],
        ["create", "--logn=10", "--compress=none", "-q", "--host", pool, "-o", second],
        ["restore", "-q", "--yes", "--host", f"dir:{tmp_path / 'back'}", second],
    ):
        done = run("qb-backup", *words, timeout=600, **variables)
        assert done.returncode == 0, (words, done.stderr.decode())
    assert volume_names(vg) == {"vm-work-root", "vm-work-private"}
    for path in "work/root.img", "work/private.img":
        device = Path(f"/dev/{vg}/vm-{path.replace('/', '-').removesuffix('.img')}")
        image = (source / path).read_bytes()
        assert guest.read(device, 0, len(image)) == image
        assert (tmp_path / "back" / path).read_bytes() == image
    guest.remove(*(f"{vg}/{name}" for name in volume_names(vg)))
