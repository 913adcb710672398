"""qb-backup create --checkpoints: of a machine of libvirt that runs, the next run only reads what it has written."""

from __future__ import annotations

import random
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from chains import header_of
from libvirtd import Libvirt, disk
from libvirtsite import raw
from running import Running, kill, wait_until
from support import bash, run

from qbtools.volumes.marks import Kept

KIB, MIB = 1 << 10, 1 << 20
BLOCK = 64 * KIB
SECRET = {"QB_PASSPHRASE_COMMAND": "echo points"}
SIZES = {"vda": 4 * MIB, "vdb": 2 * MIB, "vdc": MIB}
EVERYTHING = "everything is read: "


class Nights:
    """A machine that is paused, so that it writes only what a test says. disks: their names; vdc is raw."""

    def __init__(self, host: Libvirt, path: Path, holds: Path, disks: Sequence[str]) -> None:
        self.host, self.path, self.disks, self.number = host, path, disks, 0
        self.settings = {"QB_LIBVIRT_DIR": str(holds), **SECRET}
        for name in disks:
            plain, size = path / "plain", SIZES[name]
            plain.write_bytes(random.Random(name).randbytes(size // 2).ljust(size, b"\0"))
            form = self.image(name).suffix[1:]
            assert run("qemu-img", "convert", "-O", form, plain, self.image(name)).returncode == 0
        devices = (disk(self.image(name), name, self.image(name).suffix[1:]) for name in disks)
        self.uuid = host.define("work", "".join(devices))
        self.start()

    def image(self, name: str) -> Path:
        return self.host.place / f"images/{name}.{'raw' if name == 'vdc' else 'qcow2'}"

    def start(self) -> None:
        self.host.virsh("start", "--paused", self.uuid)

    def stop(self) -> None:
        self.host.virsh("destroy", self.uuid)

    def kill(self) -> None:
        """Kills qemu, which writes no bitmaps then."""
        kill(int((self.host.place / "run/qemu/work.pid").read_text()), signal.SIGKILL)
        wait_until(lambda: self.uuid not in self.host.virsh("list", "--uuid"), "libvirt notices it")

    def grow(self, name: str) -> None:
        assert run("qemu-img", "resize", self.image(name), f"{SIZES[name] + MIB}").returncode == 0

    def write(self, name: str, at: int, data: int = 7, size: int = 512) -> None:
        """QEMU writes, as for the machine, and everything is in the image afterwards."""
        device = f"/machine/peripheral/virtio-disk{list(SIZES).index(name)}/virtio-backend"
        for command in f"write -P {data} {at} {size}", "flush":
            said = self.host.virsh("qemu-monitor-command", self.uuid, "--hmp", f'qemu-io -d {device} "{command}"')
            assert said.strip() == "", said

    def words(self, more: str, compress: str = "none") -> str:
        common = f"-v --logn 10 --compress {compress} --series series --host 'libvirt:{self.host.uri}'"
        return f"cd {self.path} && exec qb-backup create {common} {more}"

    def create(self, more: str = "--checkpoints") -> str:
        """Saves to the next file. Returns what was said."""
        done = bash(self.words(f"-o {self.number}.qb {more}"), **self.settings)
        assert done.returncode == 0, done.stderr.decode()
        self.number += 1
        return done.stderr.decode()

    def id(self, number: int = -1) -> str:
        """The ID of an archive."""
        return header_of(self.path / f"{range(self.number)[number]}.qb").backup_id

    def points(self) -> list[str]:
        """The checkpoints of the machine: the archives that ours belong to, and the names of others."""
        names = self.host.virsh("checkpoint-list", self.uuid, "--name").split()
        return [one.backup_id if (one := Kept.parse(name)) else name for name in names]

    def read(self, said: str) -> dict[str, int]:
        """How much of a disk was read, where not everything was."""
        base = self.id(-2)
        found = re.findall(rf"nbd:nbd\+unix:///(\w+)\?\S+: (\d+) bytes may have changed since {base}, only these", said)
        return {name: int(count) for name, count in found}

    def same(self, name: str, base: Path) -> bool:
        """Whether the last archive has the same of a volume as one that was made by reading everything.

        base: the indexes of the archive before.
        """
        archived = f"vm1/{name}.img"
        index = f"vm1.{name}.img.index"
        words = f"--base {base}/{index} --index {self.path}/made --overwrite --id {self.id()} --name {archived}"
        form = "qcow2" if name != "vdc" else "file"
        made = bash(f"qb-volread --state=current {form}:{self.image(name)} | qb-delta {words}")
        assert made.returncode == 0, made.stderr
        kept = (self.path / "series/indexes" / self.id() / index).read_bytes()
        new = (self.path / "made").read_bytes()
        text = f"qb-unseal {archived} <{self.path}/{self.number - 1}.qb | qb-tarextract"
        return bash(text, **SECRET).stdout == made.stdout and (kept[:64], kept[512:]) == (new[:64], new[512:])

    def check(self) -> None:
        """All archives together restore the present state."""
        shutil.rmtree(self.path / "to", ignore_errors=True)
        files = " ".join(f"{number}.qb" for number in range(self.number))
        done = bash(f"cd {self.path} && qb-backup restore -q --to to {files}", **SECRET)
        assert (done.returncode, done.stderr) == (0, b"")
        for name in self.disks:
            assert (self.path / f"to/work/{name}.img").read_bytes() == raw(self.image(name)), name

    def series(self, command: str, *ids: str) -> str:
        """What qb-series says."""
        words = ["--keep-last=9"] if command == "forget" else []
        done = run("qb-series", command, "-v", *words, self.path / "series", *ids, **self.settings)
        assert done.returncode == 0, done.stderr
        return done.stderr.decode()


@pytest.fixture
def nights(libvirt: Libvirt, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Nights]:
    with tempfile.TemporaryDirectory(prefix="qb-") as short:
        yield Nights(libvirt, tmp_path, Path(short, "holds"), getattr(request, "param", ("vda", "vdb")))


@pytest.mark.parametrize("nights", [tuple(SIZES)], indirect=True)
def test_only_what_changed_is_read(nights: Nights) -> None:
    kinds = {"vda": "bitmap", "vdb": "bitmap", "vdc": "no"}
    disks = [f"--diskspec={name},checkpoint={kind}" for name, kind in kinds.items()]
    nights.host.virsh("checkpoint-create-as", nights.uuid, "owner", *disks)
    said = nights.create("")
    assert nights.points() == ["owner"] and "the checkpoints of the machine in libvirt" in said
    said = nights.create()
    assert said.count(f"{EVERYTHING}no checkpoint of its last state is kept\n") == 2
    assert nights.points() == ["owner", nights.id()]
    base = nights.path / "base"
    shutil.copytree(nights.path / "series/indexes" / nights.id(), base)
    nights.write("vda", 0)
    nights.write("vda", 3 * MIB)  # in a hole
    nights.write("vdc", 1024)
    said = nights.create()
    assert nights.read(said) == {"vda": 2 * BLOCK, "vdb": 0}
    assert said.count(EVERYTHING) == said.count(f"{EVERYTHING}a disk of the format raw has no bitmap\n") == 1
    assert all(nights.same(name, base) for name in SIZES)
    assert nights.points() == ["owner", nights.id()]
    nights.host.virsh("checkpoint-delete", nights.uuid, "owner")
    nights.write("vdb", MIB)
    said = nights.create("")
    assert nights.read(said) == {"vda": 0, "vdb": BLOCK}, "that of the base is used"
    assert nights.points() == [] and "the checkpoints of the machine in libvirt" not in said
    nights.check()


def test_bitmaps_that_cannot_be_used(nights: Nights) -> None:
    """The run after qemu was killed reads everything, and so does one that finds another image. Then it goes on."""
    nights.create()
    nights.write("vda", MIB)
    nights.kill()
    nights.start()
    nights.write("vdb", 0)
    said = nights.create()
    assert nights.read(said) == {}
    assert said.count(": checkpoint inconsistent: missing or broken bitmap") == 2
    assert nights.points() == [nights.id()], "also that of which libvirt has lost the bitmaps is removed"
    nights.stop()
    nights.grow("vdb")
    images = nights.image("vda"), nights.image("vdb")
    images[0].rename(images[0].with_suffix(".old"))
    shutil.copy(images[0].with_suffix(".old"), images[0])
    nights.start()
    nights.write("vda", 0)
    said = nights.create()
    assert nights.read(said) == {}
    assert said.count(f"{EVERYTHING}its image is another one than at its last state\n") == 1
    assert said.count(f"{EVERYTHING}its size has changed\n") == 1
    nights.write("vda", 0, 8)
    assert nights.read(nights.create()) == {"vda": BLOCK, "vdb": 0}
    nights.check()


def test_a_machine_that_is_off(nights: Nights) -> None:
    """libvirt removes no checkpoint then, so the series does it later. Without any the machine can be undefined."""
    nights.create()
    nights.stop()
    first, said = nights.id(), nights.create()
    later = f"the checkpoint qbtools-kept-{first} of work is removed when its machine runs again\n"
    assert nights.points() == [first] and said.count(later) == 1 and nights.read(said) == {}
    assert later in nights.series("confirm", nights.id())
    nights.host.virsh("domrename", nights.uuid, "other")
    nights.start()
    assert later not in nights.series("forget")
    assert nights.points() == []
    nights.stop()
    nights.host.virsh("undefine", nights.uuid)


def test_what_is_not_confirmed_and_what_dies(nights: Nights) -> None:
    nights.create()
    done = bash(nights.words(f"--checkpoints >{nights.number}.qb"), **nights.settings)
    assert done.returncode == 0, done.stderr
    nights.number += 1
    first, second = nights.id(-2), nights.id()
    assert nights.points() == [first, second]
    (nights.path / "run").mkdir()
    with Running(nights.path / "run", nights.path, **nights.settings) as running:
        running.hold_in("vm1/vdb.img", 1000)
        running.start(nights.words("--checkpoints -o part.qb", "gzip"))
        running.hold()
        assert nights.points()[:2] == [first, second] and len(nights.points()) == 3
        for pid in running.processes("qb-host-libvirt") + running.processes():
            kill(pid, signal.SIGKILL)
        running.gone()
    nights.series("confirm", second)
    assert first in nights.points(), "the job of the killed run still runs"
    nights.write("vda", 0)
    assert nights.read(nights.create()) == {"vda": BLOCK, "vdb": 0}
    assert nights.points() == [nights.id()]
    nights.check()


def test_an_image_without_bitmaps(libvirt: Libvirt, nights: Nights) -> None:
    nights.stop()
    old = nights.image("vdb")
    assert run("qemu-img", "amend", "-f", "qcow2", "-o", "compat=0.10", old).returncode == 0
    nights.start()
    said = nights.create()
    assert said.count("qb-backup: warning: no checkpoint of work can be made: ") == 1
    assert nights.points() == []
