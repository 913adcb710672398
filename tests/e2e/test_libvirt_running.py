"""Machines of libvirt that run are saved at one point in time. Whatever happens, no job and no file is left."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import linuxguest
import pytest
from devices import file_system, tmpfs
from guests import boot_disk, counter
from libvirtd import Libvirt, disk
from linuxguest import AGENT
from running import Running, kill, wait_until
from support import need, run

from qbtools.volumes.marks import Mark

MiB = 1 << 20
SECRET = {"QB_PASSPHRASE_COMMAND": "echo libvirt"}

# Stands for a guest agent: answers for it, and writes down what it is asked.
_VIRSH = """#!/bin/bash
for word; do
    case $word in
        qemu-agent-command) echo ping >>LOG; [ ! -e LOG.silent ] || exit 1; exit 0 ;;
        domfsfreeze) echo freeze >>LOG; exit 0 ;;
        domfsthaw) echo thaw >>LOG; exit 0 ;;
        backup-begin) echo begin >>LOG ;;
    esac
done
exec VIRSH "$@"
"""

# Writes down what a real agent says when the job begins: VIRSH -q -c URI backup-begin UUID FILE. hang: the job never
# begins.
_ASKING = """#!/bin/bash
if [ "$4" = backup-begin ]; then
    VIRSH "${@:1:3}" qemu-agent-command "$5" '{"execute":"guest-fsfreeze-status"}' >>LOG
    while [ -e LOG.hang ]; do sleep 0.1; done
fi
exec VIRSH "$@"
"""


# Kills its caller, the host, before or after a step: VIRSH -q -c URI STEP ...
_KILLS = """#!/bin/bash
if [ "$4" = {step} ] && [ {when} = before ]; then
    kill -9 $PPID
    exit 1
fi
{real} "$@"
status=$?
if [ "$4" = {step} ]; then
    kill -9 $PPID
fi
exit $status
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def holds() -> Iterator[Path]:
    """A directory with a short name: the path of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="qb-") as short:
        yield Path(short, "holds")


@pytest.fixture
def running(place: Path, holds: Path) -> Iterator[Running]:
    (place / "run").mkdir()
    with Running(place / "run", place, QB_LIBVIRT_DIR=str(holds), **SECRET) as made:
        yield made


@pytest.fixture
def writing(libvirt: Libvirt) -> str:
    """The UUID of a machine that writes to two disks, the second of which has a backing file."""
    return start_writing(libvirt)


@pytest.fixture
def paused(libvirt: Libvirt) -> str:
    """The UUID of the same machine, which is paused before it writes: its firmware need not be emulated."""
    return define_writing(libvirt, "--paused")


def start_writing(host: Libvirt, rest: str = "") -> str:
    uuid = define_writing(host, rest=rest)
    wait_until(lambda: writes(host, uuid) > 5, "the machine writes")
    return uuid


def define_writing(host: Libvirt, *words: str, rest: str = "") -> str:
    images = host.place / "images"
    boot_disk(images / "boot.qcow2")
    (images / "base.raw").write_bytes(bytes(MiB) + b"base" + bytes(MiB - 4))
    done = run("qemu-img", "create", "-q", "-f", "qcow2", "-b", images / "base.raw", "-F", "raw", images / "top.qcow2")
    assert done.returncode == 0, done.stderr
    first, second = (f"<boot order='{number}'/>" for number in (1, 2))  # else the BIOS would not know the second
    devices = disk(images / "boot.qcow2", "vda", "qcow2", first) + disk(images / "top.qcow2", "vdb", "qcow2", second)
    uuid = host.define("writes", devices + rest)
    host.virsh("start", *words, uuid)
    return uuid


def writes(host: Libvirt, uuid: str, target: str = "vdb") -> int:
    found = re.search(r"wr_req (\d+)", host.virsh("domblkstat", uuid, target))
    return int(found[1]) if found else 0


def left(host: Libvirt, holds: Path) -> list[str]:
    """Jobs and files that are left."""
    jobs = [uuid for uuid in host.virsh("list", "--uuid").split() if "None" not in host.virsh("domjobinfo", uuid)]
    return jobs + sorted(path.name for path in holds.glob("*") if path.name != "lock")


def create(host: Libvirt, words: str = "") -> str:
    return f"exec qb-backup create -q --logn 10 -o a.qb --host 'libvirt:{host.uri}' {words}"


def start_held(host: Libvirt, running: Running) -> None:
    """Starts saving, and waits until it stops in the second disk."""
    running.hold_in("vm1/vdb.img", 1000)
    running.start(create(host))
    running.hold()


def kill_while_saving(host: Libvirt, running: Running) -> None:
    start_held(host, running)
    for pid in running.processes("qb-host-libvirt") + running.processes():  # first the one that watches the job
        kill(pid, signal.SIGKILL)
    running.gone()


def save_again(host: Libvirt, running: Running) -> None:
    running.program("igzip", "#!/bin/bash\nexec gzip -c\n")
    running.start(create(host))
    assert running.end() == (0, "")


def restored(place: Path, name: str = "writes") -> dict[str, bytes]:
    (place / "B").mkdir()
    done = run("qb-backup", "restore", "-q", "--yes", f"--host={place}/B", place / "a.qb", **SECRET)
    assert (done.returncode, done.stderr) == (0, b"")
    return {path.stem: path.read_bytes() for path in (place / "B" / name).glob("*.img")}


def test_a_machine_that_writes_is_saved_at_one_point_in_time(
    libvirt: Libvirt,
    writing: str,
    running: Running,
    place: Path,
    holds: Path,
) -> None:
    start_held(libvirt, running)
    assert len(left(libvirt, holds)) == 4
    before = writes(libvirt, writing)
    wait_until(lambda: writes(libvirt, writing) > before + 10, "it goes on writing")
    running.release()
    assert running.end() == (0, "")
    assert left(libvirt, holds) == []
    found = restored(place)
    first, second = counter(found["vda"]), counter(found["vdb"])
    assert first - second in (0, 1) and second > 0
    assert len(found["vda"]) == 4 * MiB and found["vdb"][MiB : MiB + 4] == b"base"


def test_machines_that_are_paused_or_off(libvirt: Libvirt, writing: str, running: Running, place: Path) -> None:
    libvirt.virsh("suspend", writing)
    off = libvirt.place / "images/off.raw"
    off.write_bytes(b"off" + bytes(MiB - 3))
    libvirt.define("off", disk(off))
    running.start(create(libvirt, "--json"))
    assert running._process is not None
    out, said = running._process.communicate()
    assert running._process.returncode == 0
    assert said.decode() == (
        "qb-backup: warning: no snapshot of off can be taken: do not start it before it has been read\n"
    )
    assert {one["name"]: one["problem"] for one in json.loads(out)["domains"]} == {"off": None, "writes": None}
    assert restored(place, "off") == {"vda": off.read_bytes()}
    found = {path.stem: path.read_bytes() for path in (place / "B/writes").glob("*.img")}
    assert counter(found["vda"]) - counter(found["vdb"]) in (0, 1)
    assert "paused" in libvirt.virsh("domstate", writing)


def test_a_job_of_somebody_else(libvirt: Libvirt, paused: str, running: Running, place: Path, holds: Path) -> None:
    job = place / "job.xml"
    scratch = libvirt.place / "images/scratch"
    job.write_text(
        f"<domainbackup mode='pull'><server transport='unix' socket='{libvirt.place}/images/s'/><disks>"
        f"<disk name='vda' backup='yes' type='file'><scratch file='{scratch}'/></disk></disks></domainbackup>"
    )
    libvirt.virsh("backup-begin", paused, job)
    running.start(create(libvirt))
    status, said = running.end()
    assert status == 1
    assert "writes cannot be saved now: libvirt does another job with it: Backup" in said
    assert "Backup" in libvirt.virsh("domjobinfo", paused)
    assert not [path for path in holds.glob("*") if path.name != "lock"]
    libvirt.virsh("domjobabort", paused)


def test_what_a_killed_run_has_left_goes_with_the_next(
    libvirt: Libvirt,
    paused: str,
    running: Running,
    place: Path,
    holds: Path,
) -> None:
    kill_while_saving(libvirt, running)
    assert len(left(libvirt, holds)) == 4
    save_again(libvirt, running)
    assert left(libvirt, holds) == []


def test_a_killed_run_and_a_machine_that_is_gone(
    libvirt: Libvirt,
    paused: str,
    running: Running,
    place: Path,
    holds: Path,
) -> None:
    kill_while_saving(libvirt, running)
    libvirt.virsh("destroy", paused)
    libvirt.virsh("undefine", paused)
    assert len(left(libvirt, holds)) == 3
    shutil.rmtree(libvirt.place / "images")
    (libvirt.place / "images").mkdir()
    define_writing(libvirt, "--paused")
    save_again(libvirt, running)
    assert left(libvirt, holds) == []


def test_a_signal_ends_the_job(
    libvirt: Libvirt,
    paused: str,
    running: Running,
    holds: Path,
) -> None:
    start_held(libvirt, running)
    kill(running.one("qb-run"), signal.SIGTERM)
    running.release()
    assert running.end()[0] == -signal.SIGTERM
    running.gone()
    assert left(libvirt, holds) == []


@pytest.mark.parametrize("how", ["shut down", "killed and undefined"])
def test_the_machine_ends_in_the_middle(libvirt: Libvirt, paused: str, running: Running, holds: Path, how: str) -> None:
    running.hold_in("vm1/vda.img", 1000)
    running.start(create(libvirt))
    running.hold()
    if how == "shut down":
        libvirt.virsh("destroy", paused)
    else:
        libvirt.virsh("undefine", paused)
        kill(int((libvirt.place / "run/qemu/writes.pid").read_text()), signal.SIGKILL)
        wait_until(lambda: not libvirt.uuids(), "libvirt has noticed")
    running.release()
    status, said = running.end()
    assert status == 1 and "writes is not saved completely" in said
    assert left(libvirt, holds) == []


def test_libvirtd_restarts_in_the_middle(
    libvirt: Libvirt, writing: str, running: Running, place: Path, holds: Path
) -> None:
    start_held(libvirt, running)
    libvirt.stop(signal.SIGKILL)
    libvirt.start()
    running.release()
    status, said = running.end()
    assert (status, said) == (0, "")
    assert left(libvirt, holds) == []
    found = restored(place)
    assert counter(found["vda"]) - counter(found["vdb"]) in (0, 1)


def test_the_variables_of_the_firmware(libvirt: Libvirt, running: Running, place: Path, holds: Path) -> None:
    nvram = libvirt.place / "images/nvram"
    loader = libvirt.place / "images/loader"
    nvram.write_bytes(b"vars" * 32768)
    loader.write_bytes(bytes(4 * MiB - 131072))
    firmware = f"<loader readonly='yes' type='pflash'>{loader}</loader><nvram>{nvram}</nvram>"
    root = libvirt.place / "images/root.raw"
    root.write_bytes(b"root" + bytes(MiB - 4))
    uuid = libvirt.define("uefi", disk(root), firmware, "<features><acpi/></features>")
    libvirt.virsh("start", "--paused", uuid)
    running.start(create(libvirt))
    assert running.end() == (0, "")
    assert restored(place, "uefi") == {"vda": root.read_bytes(), "nvram": nvram.read_bytes()}
    assert left(libvirt, holds) == []


def test_without_room(libvirt: Libvirt, paused: str, running: Running, holds: Path) -> None:
    holds.mkdir()
    with file_system(holds, "ext4", 8 * MiB) as small:
        free = os.statvfs(small)
        (small / "fill").write_bytes(bytes(free.f_bavail * free.f_frsize - 300 * 1024))
        running.environment["QB_LIBVIRT_DIR"] = str(small / "holds")
        running.start(create(libvirt))
        status, said = running.end()
        assert status == 1 and f"{small}/holds has no room for what writes writes meanwhile: " in said
        assert left(libvirt, small / "holds") == []


def test_the_room_gets_short(libvirt: Libvirt, running: Running) -> None:
    """The job ends before a write of the machine fails, and the next machine is saved."""
    images = libvirt.place / "images"
    boot_disk(images / "boot.qcow2", 24 * MiB, stride=128, fill=b"x")  # each write needs a cluster of the scratch file
    uuid = libvirt.define("fills", disk(images / "boot.qcow2", "vda", "qcow2"))
    libvirt.virsh("start", "--paused", uuid)
    (images / "off.raw").write_bytes(bytes(MiB))
    libvirt.define("off", disk(images / "off.raw"))
    place = libvirt.small
    running.environment["QB_LIBVIRT_DIR"] = str(place)
    running.hold_in("vm1/vda.img", 1000)
    running.start(create(libvirt, "--json"))
    running.hold()
    assert len(left(libvirt, place)) == 4
    libvirt.virsh("resume", uuid)
    wait_until(lambda: len(left(libvirt, place)) == 2, "the job ends")
    running.release()
    assert running._process is not None
    out, said = running._process.communicate()
    assert left(libvirt, place) == []
    found = {one["name"]: one["problem"] for one in json.loads(out)["domains"]}
    why = f"the backup job of fills was ended, because {place} had less than {24 * MiB // 20} bytes left"
    assert (running._process.returncode, found["off"]) == (1, None)
    assert found["fills"].startswith("vm1/vda.img: ") and found["fills"].endswith(f": {why}")
    assert said.decode().count(f"qb-backup: warning: {why}\n") == 1, said
    assert "running" in libvirt.virsh("domstate", uuid) and "No errors" in libvirt.virsh("domblkerror", uuid)
    before = writes(libvirt, uuid, "vda")
    wait_until(lambda: writes(libvirt, uuid, "vda") > before, "it goes on writing")


def hold_paused(host: Libvirt, holds: Path, mark: Mark) -> tuple[int, str]:
    """Holds a new machine that is paused, for the run with this mark. Returns status and stderr."""
    path = host.place / "images/paused.raw"
    path.write_bytes(bytes(MiB))
    host.virsh("start", "--paused", host.define("paused", disk(path)))
    done = run("qb-host-libvirt", host.uri, "hold", "paused", str(mark), QB_LIBVIRT_DIR=str(holds))
    return done.returncode, done.stderr.decode()


def test_a_place_that_libvirt_does_not_see(libvirt: Libvirt, holds: Path) -> None:
    with tmpfs(holds, MiB):  # libvirtd has its own mounts
        status, said = hold_paused(libvirt, holds, Mark.own())
        assert left(libvirt, holds) == []
    assert status == 1 and said.startswith("qb-host-libvirt: error: virsh backup-begin: failed to create image file")
    assert f"No such file or directory; libvirt must see {holds} and be allowed to write to it\n" in said
    assert said.endswith("\nhint: QB_LIBVIRT_DIR names another directory\n")


def test_the_job_of_a_killed_run_ends(libvirt: Libvirt, holds: Path) -> None:
    its_run = subprocess.Popen(["sleep", "600"])
    try:
        assert hold_paused(libvirt, holds, Mark.of(its_run.pid)) == (0, "")
        assert len(left(libvirt, holds)) == 4
    finally:
        its_run.kill()
        its_run.wait()
    wait_until(lambda: left(libvirt, holds) == [], "the job ends")


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_each_step(libvirt: Libvirt, paused: str, place: Path, holds: Path, when: str) -> None:
    """However far a run has come with the job: the next one holds the machine, and leaves nothing."""
    program, host = place / "programs/virsh", ("qb-host-libvirt", libvirt.uri)
    program.parent.mkdir()
    path = f"{program.parent}:{os.environ['PATH']}"
    for step in "backup-begin", "backup-dumpxml", "domjobabort":
        verb = "hold" if step == "backup-begin" else "release"
        program.write_text(_KILLS.format(step=step, when=when, real=shutil.which("virsh")))
        program.chmod(0o755)
        with subprocess.Popen(["sleep", "600"]) as its_run:
            mark = str(Mark.of(its_run.pid))
            try:
                if verb == "release":
                    assert run(*host, "hold", "writes", mark, QB_LIBVIRT_DIR=str(holds)).returncode == 0
                done = run(*host, verb, "writes", mark, QB_LIBVIRT_DIR=str(holds), PATH=path)
                assert done.returncode == -signal.SIGKILL
            finally:
                its_run.kill()
        for verb in "hold", "release":
            done = run(*host, verb, "writes", str(Mark.own()), QB_LIBVIRT_DIR=str(holds))
            assert (done.returncode, done.stderr) == (0, b""), step
        assert left(libvirt, holds) == [], step


def test_a_place_for_no_socket(libvirt: Libvirt, paused: str, running: Running, place: Path) -> None:
    running.environment["QB_LIBVIRT_DIR"] = f"{place}/{'x' * 60}"
    running.start(create(libvirt))
    status, said = running.end()
    assert status == 1 and "x has a name that is too long for a socket below it" in said


def virsh(running: Running, text: str, log: Path) -> None:
    """Another virsh, which runs the real one."""
    running.program("virsh", text.replace("LOG", str(log)).replace("VIRSH", str(shutil.which("virsh"))))


def test_an_agent_is_asked_first(
    libvirt: Libvirt,
    running: Running,
    place: Path,
    holds: Path,
) -> None:
    start_writing(libvirt, AGENT)
    log = place / "log"
    virsh(running, _VIRSH, log)
    running.start(create(libvirt))
    assert running.end() == (0, "")
    assert log.read_text().split() == ["ping", "freeze", "begin", "thaw"]
    (place / "log.silent").touch()
    (place / "a.qb").unlink()
    log.unlink()
    running.start(create(libvirt))
    said = "the guest agent of writes does not answer: its file systems are saved as after a power failure"
    assert running.end() == (0, f"qb-backup: warning: {said}\n")
    assert log.read_text().split() == ["ping", "begin"]
    assert left(libvirt, holds) == []


def test_a_real_agent_freezes_it_only_while_the_job_begins(
    libvirt: Libvirt,
    running: Running,
    place: Path,
    holds: Path,
) -> None:
    """Its file system is clean in the archive. It is thawed even if all that we run is killed."""
    need("mkfs.ext4", "e2fsck", "dumpe2fs")
    image = libvirt.place / "images/root"
    image.touch()
    os.truncate(image, 16 * MiB)
    assert run("mkfs.ext4", "-q", image).returncode == 0
    words = linuxguest.start_words(libvirt.place / "images")
    uuid = libvirt.define("linux", disk(image) + AGENT, words, "<features><acpi/></features>", memory=160)
    libvirt.virsh("start", uuid)
    wait_until(lambda: agent_says(libvirt, uuid, "guest-ping") == {}, "the agent", linuxguest.PATIENCE)
    wait_until(lambda: writes(libvirt, uuid, "vda") > 5 and needs_recovery(image), "it is mounted")
    log = place / "log"
    virsh(running, _ASKING, log)
    hang = Path(f"{log}.hang")
    hang.touch()
    running.start(create(libvirt))
    wait_until(lambda: log.exists() and log.read_text().endswith("\n"), "the job")
    for pid in running.processes("qb-run") + running.processes("qb-host-libvirt")[:1]:
        kill(pid, signal.SIGKILL)
    wait_until(lambda: agent_says(libvirt, uuid, "guest-fsfreeze-status") == "thawed", "it is thawed")
    hang.unlink()
    for pid in running.processes():
        kill(pid, signal.SIGKILL)
    running.gone()
    running.start(create(libvirt))
    status, said = running.end()
    assert (status, said.count("\n"), said.count("a file of the host")) == (0, 2, 2)
    assert [json.loads(line)["return"] for line in log.read_text().split()] == ["frozen", "frozen"]
    assert agent_says(libvirt, uuid, "guest-fsfreeze-status") == "thawed"
    before = writes(libvirt, uuid, "vda")
    wait_until(lambda: writes(libvirt, uuid, "vda") > before, "it goes on writing")
    assert left(libvirt, holds) == []
    restored(place, "linux")
    saved = place / "B/linux/vda.img"
    assert needs_recovery(image) and not needs_recovery(saved)
    assert run("e2fsck", "-fn", saved).returncode == 0


def agent_says(host: Libvirt, uuid: str, command: str) -> object:
    """The answer of a guest agent, None if there is none."""
    done = run("virsh", "-q", "-c", host.uri, "qemu-agent-command", uuid, json.dumps({"execute": command}))
    return None if done.returncode else json.loads(done.stdout)["return"]


def needs_recovery(image: Path) -> bool:
    """Whether the journal of an ext4 has something that is not in its place yet."""
    return b" needs_recovery" in run("dumpe2fs", "-h", image).stdout


def test_who_holds_a_machine(libvirt: Libvirt, paused: str, holds: Path) -> None:
    """Another run is refused, and only the mark of the run that holds it releases it."""
    host = ["qb-host-libvirt", libvirt.uri]
    place = {"QB_LIBVIRT_DIR": str(holds)}
    mark, other = str(Mark.own()), str(Mark.of(os.getppid()))
    assert run(*host, "hold", "writes", mark, **place).stdout.decode().splitlines()[2:] == ["end"]
    assert mark in run(*host, "inventory", **place).stdout.decode()
    done = run(*host, "hold", "writes", other, **place)
    assert (done.returncode, done.stderr) == (5, b"qb-host-libvirt: error: another run holds writes\n")
    for given, count in ((other, 4), (mark, 0), (mark, 0)):
        assert run(*host, "release", "writes", given, **place).returncode == 0
        assert len(left(libvirt, holds)) == count
    assert run(*host, "release", "writes").returncode == 2
    assert run(*host, "inventory", "writes", mark).returncode == 2


def test_a_disk_that_only_libvirt_can_read(libvirt: Libvirt, running: Running, place: Path, holds: Path) -> None:
    path = libvirt.place / "images/ä b"
    path.write_bytes(b"odd" + bytes(MiB - 3))
    libvirt.virsh("start", "--paused", libvirt.define("odd", disk(path)))
    done = run("qb-host-libvirt", libvirt.uri, "volumes", "odd")
    assert done.stdout.decode().split("\t")[:3] == ["vda", "nbd:held", str(MiB)]
    running.start(create(libvirt))
    assert running.end() == (0, "")
    assert restored(place, "odd") == {"vda": path.read_bytes()}
    assert left(libvirt, holds) == []
