"""Holds the disks of a machine that runs: a backup job of libvirt in pull mode exports all of them on one socket.

PLACE has for each held machine
    UUID.MARK   an empty file: the run that holds it
    UUID        a directory for qemu, with the socket and the scratch files
    UUID.own    a directory for us, with the description of the job and a copy of the variables of the firmware
The first is made first and removed last, so the next run finds what a killed run has left. Meanwhile a process of its
own watches the job: if the room for the scratch files gets short, or if the run has ended, it ends the job.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from shlex import join
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, tostring

from qbtools.descriptors import lock_within
from qbtools.errors import Failed, QbError, Refused
from qbtools.hosts.libvirt import checkpoints, readers, watching
from qbtools.hosts.libvirt.checkpoints import Plan, Wish
from qbtools.hosts.libvirt.machine import NVRAM, Machine
from qbtools.hosts.libvirt.virsh import Virsh
from qbtools.hosts.listing import Held
from qbtools.streams import Writer
from qbtools.volumes import kernel
from qbtools.volumes.freezing import Frozen
from qbtools.volumes.kind import naming
from qbtools.volumes.marks import Mark

STATE = "/var/lib/qbtools/libvirt"
"""PLACE; a variable can name another directory."""

QEMU = "/var/lib/libvirt/qemu"
"""A directory of the user of qemu."""

THAW_LIMIT = 30.0
"""The most seconds for which a machine may be frozen."""

ROOM = 10
"""Percent of the bytes of the disks that must be free for what the machine writes meanwhile."""

LEAST = 1 << 30
"""A job is ended if fewer bytes are free, or fewer than half of what had to be free at its start, if that is less."""

_SHORT = "short"  # in UUID.own: the warning of a job that was ended for that reason
_LONGEST = 107  # bytes of the path of a socket (unix(7))
_ELSEWHERE = "QB_LIBVIRT_DIR names another directory"
_PATIENCE = 60.0


class Holds:
    """The machines that are held. All methods: Failed if libvirt or the file system fails."""

    def __init__(self, virsh: Virsh, place: str, warn: Callable[[str], None]) -> None:
        self._virsh = virsh
        self._place = os.path.realpath(place)
        self._warn = warn

    def marks(self) -> dict[str, str]:
        """The mark of the run that holds a machine, by UUID."""
        with naming(f"read {self._place}"):
            try:
                entries = sorted(os.listdir(self._place))
            except FileNotFoundError:
                return {}
        pairs = [entry.partition(".") for entry in entries]
        return {uuid: mark for uuid, _dot, mark in pairs if Mark.parse(mark) is not None}

    def begin(self, name: str, uuid: str, machine: Machine, mark: str, wish: Wish) -> dict[str, Held]:
        """Holds a machine that runs. Returns how each disk is read, by its name.

        wish: the checkpoints; if there are problems with them, it is held without. Refused if another run holds it,
        if its state or another job does not allow it, or without room. Ends what ended runs hold.
        """
        if len(os.fsencode(self._socket(uuid))) > _LONGEST:
            raise Refused(f"{self._place} has a name that is too long for a socket below it", _ELSEWHERE)
        with self._locked():
            self._sweep(uuid)
            if uuid in self.marks():
                raise Refused(f"another run holds {name}")
            paused = self._check(name, uuid)
            targets = self._virsh.targets(uuid)
            disks = [disk.name for disk in machine.disks if disk.name != NVRAM]
            if missing := [disk for disk in disks if disk not in targets]:
                raise Failed(f"{name} runs without its disk {missing[0]}", "shut it down and start it again")
            for target in targets:
                if target not in machine.targets:
                    self._warn(f"{name} has the disk {target} only until it is shut down: it is not saved")
            least = self._check_room(name, uuid, disks)
            try:
                self._make(uuid, mark)
                plan = checkpoints.plan(self._virsh, uuid, disks, wish)
                with self._still(name, uuid, machine, paused):
                    plan = self._begin(uuid, disks, targets, plan) if disks else plan
                    words = self._firmware(uuid, machine)
                if plan.problem:
                    self._warn(f"no checkpoint of {name} can be made: {plan.problem}")
                words |= {disk: self._held(uuid, disk, plan) for disk in disks}
                if disks:
                    watching.start(lambda: self._look(name, uuid, mark, least))
            except BaseException:
                self._finish(uuid)
                raise
            return {disk.name: words[disk.name] for disk in machine.disks if disk.name in words}

    def end(self, uuid: str, mark: str) -> None:
        """Ends the hold of that run; does nothing if it does not hold the machine.

        Warns if the job has ended before, because the room was short.
        """
        if self.marks().get(uuid) == mark:
            with self._locked():
                if self.marks().get(uuid) == mark:
                    if said := kernel.text(self._path(f"{uuid}.own", _SHORT)):
                        self._warn(said)
                    self._finish(uuid)

    def end_lost(self, known: Sequence[str], mark: str) -> None:
        """Ends what that run holds of machines that do not exist any more. known: the UUIDs of all machines."""
        for uuid in [uuid for uuid, held in self.marks().items() if held == mark and uuid not in known]:
            self.end(uuid, mark)

    def _check(self, name: str, uuid: str) -> bool:
        """Refused if its state does not allow a backup job. Returns whether it is paused."""
        state = self._virsh.state(uuid)
        if not state.startswith(("running", "paused", "idle", "blocked")) or "migrat" in state:
            raise Refused(f"{name} cannot be saved now: its state is {state}")
        if job := self._virsh.job(uuid):
            raise Refused(f"{name} cannot be saved now: libvirt does another job with it: {job}")
        return state.startswith("paused")

    def _check_room(self, name: str, uuid: str, disks: Sequence[str]) -> int:
        """Refused without room: if it was used up, writes of the machine would fail.

        Returns the bytes that must stay free until the end.
        """
        usage = self._virsh.usage(uuid)
        wanted = sum(usage[disk].size for disk in disks if disk in usage) * ROOM // 100
        if self._free() < wanted:
            raise Refused(
                f"{self._place} has no room for what {name} writes meanwhile: {wanted} bytes are needed",
                _ELSEWHERE,
            )
        return min(wanted // 2, LEAST)

    def _free(self) -> int:
        with naming(f"look at {self._place}"):
            found = os.statvfs(self._place)
        return found.f_bavail * found.f_frsize

    def _look(self, name: str, uuid: str, mark: str, least: int) -> bool:
        """Ends the job if fewer bytes than least are free, or if its run has ended. Returns whether it must go on."""
        if self.marks().get(uuid) != mark:
            return False  # the directory may be gone, too
        owner = Mark.parse(mark)
        ended = owner is not None and owner.dead()
        if not ended and self._free() >= least:
            return True
        with self._locked():
            if self.marks().get(uuid) != mark:
                return False
            if ended:
                self._finish(uuid)
                return False
            said = f"the backup job of {name} was ended, because {self._place} had less than {least} bytes left"
            self._write(uuid, _SHORT, os.fsencode(said))  # before the readers fail
            self._stop(uuid)
        return False

    def _make(self, uuid: str, mark: str) -> None:
        with naming(f"write to {self._place}"):
            os.close(os.open(self._path(f"{uuid}.{mark}"), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            os.mkdir(self._path(f"{uuid}.own"), 0o700)
            os.mkdir(self._path(uuid), 0o700)
            if os.geteuid() == 0:
                with suppress(FileNotFoundError):
                    owner = os.stat(QEMU)
                    os.chown(self._path(uuid), owner.st_uid, owner.st_gid)

    def _begin(self, uuid: str, disks: Sequence[str], targets: Sequence[str], plan: Plan) -> Plan:
        """Begins a job, if necessary without checkpoints. Returns what it does with them."""
        job = self._write(uuid, "backup.xml", self._describe(uuid, disks, targets, plan))
        checkpoint = self._write(uuid, "checkpoint.xml", plan.to_xml(targets)) if plan.name else None
        try:
            self._virsh.begin_backup(uuid, job, checkpoint)
        except Failed as error:
            if self._path(uuid) in error.message:
                needed = f"libvirt must see {self._place} and be allowed to write to it"
                raise Failed(f"{error.message}; {needed}", _ELSEWHERE) from error
            less = plan.less(error.message)
            if less is None or self._virsh.job(uuid):  # it may have begun although virsh did not hear of it
                raise
            return self._begin(uuid, disks, targets, less)
        return plan

    def _describe(self, uuid: str, disks: Sequence[str], targets: Sequence[str], plan: Plan) -> bytes:
        """The XML of a backup job."""
        root = Element("domainbackup", mode="pull")
        SubElement(root, "server", transport="unix", socket=self._socket(uuid))
        parent = SubElement(root, "disks")
        for target in targets:
            if target not in disks:
                SubElement(parent, "disk", name=target, backup="no")
                continue
            disk = SubElement(parent, "disk", name=target, backup="yes", type="file", exportname=target)
            SubElement(disk, "driver", type="qcow2")
            SubElement(disk, "scratch", file=self._path(uuid, f"{target}.qcow2"))
            if target in plan.since:
                since = {"backupmode": "incremental", "incremental": plan.base, "exportbitmap": _bitmap(target)}
                disk.attrib.update(since)
        return tostring(root)

    def _write(self, uuid: str, name: str, data: bytes) -> str:
        """Writes a file for libvirt. Returns its path."""
        path = self._path(f"{uuid}.own", name)
        with naming(f"write {path}"), io.FileIO(path, "w") as file:
            Writer(file, path).write(data)
        return path

    def _firmware(self, uuid: str, machine: Machine) -> dict[str, Held]:
        """Copies the variables of the firmware, which no backup job has."""
        for disk in machine.disks:
            if disk.name == NVRAM and disk.problem is None and os.path.lexists(disk.source):
                path = self._path(f"{uuid}.own", NVRAM)
                with naming(f"copy {disk.source}"):
                    shutil.copyfile(disk.source, path)
                return {NVRAM: Held(f"{'file' if disk.form == 'raw' else disk.form}:{path}")}
        return {}

    def _still(self, name: str, uuid: str, machine: Machine, paused: bool) -> AbstractContextManager[None]:
        """Freezes the machine if its agent answers."""
        if paused or not machine.has_agent:
            return nullcontext()
        if not self._virsh.agent_answers(uuid):
            self._warn(
                f"the guest agent of {name} does not answer: its file systems are saved as after a power failure"
            )
            return nullcontext()
        freeze, thaw = (join(self._virsh.argv(verb, uuid)) for verb in ("domfsfreeze", "domfsthaw"))
        return Frozen(freeze, thaw, THAW_LIMIT, self._warn)

    def _sweep(self, wanted: str) -> None:
        """Ends what ended runs hold. Raises an error only for the machine that is wanted."""
        for uuid, text in self.marks().items():
            mark = Mark.parse(text)
            if mark is not None and mark.dead():
                try:
                    self._finish(uuid)
                except QbError:
                    if uuid == wanted:
                        raise

    def _finish(self, uuid: str) -> None:
        """Ends our job, if it is still ours, and removes everything."""
        self._stop(uuid)
        with naming(f"remove {self._path(uuid)}"):
            with suppress(FileNotFoundError):
                shutil.rmtree(self._path(f"{uuid}.own"))
            for held, mark in self.marks().items():
                if held == uuid:
                    os.unlink(self._path(f"{uuid}.{mark}"))

    def _stop(self, uuid: str) -> None:
        """Ends our job, if it is still ours, and removes what qemu has of it.

        Ends its readers first: to end a job, qemu waits until they have taken what they asked for, and meanwhile the
        machine hangs.
        """
        if uuid in self._virsh.running() and self._virsh.backup_has(uuid, self._socket(uuid)):
            with naming(f"remove {self._socket(uuid)}"), suppress(FileNotFoundError):
                os.unlink(self._socket(uuid))
            readers.end_all(self._query(uuid))
            self._virsh.abort(uuid)
        with naming(f"remove {self._path(uuid)}"), suppress(FileNotFoundError):
            shutil.rmtree(self._path(uuid))

    def _held(self, uuid: str, disk: str, plan: Plan) -> Held:
        since = f"nbd:{_bitmap(disk)}" if disk in plan.since else ""
        return Held(f"nbd:nbd+unix:///{quote(disk)}{self._query(uuid)}", since, plan.reasons.get(disk, ""))

    def _query(self, uuid: str) -> str:
        return f"?socket={quote(self._socket(uuid))}"

    def _socket(self, uuid: str) -> str:
        return self._path(uuid, "socket")

    def _path(self, *parts: str) -> str:
        return os.path.join(self._place, *parts)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """While the body runs, no other run holds or releases a machine."""
        with naming(f"lock {self._place}"):
            os.makedirs(self._place, 0o711, exist_ok=True)
            fd = os.open(self._path("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if not lock_within(fd, _PATIENCE):
                raise Failed(f"another run has held {self._place} for {_PATIENCE:.0f} seconds")
            yield
        finally:
            os.close(fd)


def _bitmap(disk: str) -> str:
    """The name under which the bitmap of a disk is exported; the same as without our choice."""
    return f"backup-{disk}"
