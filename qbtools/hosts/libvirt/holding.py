"""Holds the disks of a machine that runs: a backup job of libvirt in pull mode exports all of them on one socket.

PLACE has for each held machine
    UUID.MARK   an empty file: the run that holds it
    UUID        a directory for qemu, with the socket and the scratch files
    UUID.own    a directory for us, with the description of the job and a copy of the variables of the firmware
The first is made first and removed last, so the next run finds what a killed run has left.
"""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from shlex import join
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, tostring

from qbtools.descriptors import try_lock
from qbtools.errors import Failed, QbError, Refused
from qbtools.hosts.libvirt.machine import NVRAM, Machine
from qbtools.hosts.libvirt.virsh import Virsh
from qbtools.streams import Writer
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

_LONGEST = 107  # bytes of the path of a socket (unix(7))
_ELSEWHERE = "QB_LIBVIRT_DIR names another directory"
_PATIENCE, _PAUSE = 60.0, 0.05


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

    def begin(self, name: str, uuid: str, machine: Machine, mark: str) -> dict[str, str]:
        """Holds a machine that runs. Returns the word of each disk by its name.

        Refused if another run holds it, if its state or another job does not allow it, or without room. Ends what ended
        runs hold.
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
            self._check_room(name, uuid, disks)
            try:
                self._make(uuid, mark)
                words = {disk: self._word(uuid, disk) for disk in disks}
                with self._still(name, uuid, machine, paused):
                    if disks:
                        self._virsh.begin_backup(uuid, self._describe(uuid, disks, targets))
                    words |= self._firmware(uuid, machine)
            except BaseException:
                self._finish(uuid)
                raise
            return {disk.name: words[disk.name] for disk in machine.disks if disk.name in words}

    def end(self, uuid: str, mark: str) -> None:
        """Ends the hold of that run; does nothing if it does not hold the machine."""
        if self.marks().get(uuid) == mark:
            with self._locked():
                if self.marks().get(uuid) == mark:
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

    def _check_room(self, name: str, uuid: str, disks: Sequence[str]) -> None:
        """Refused without room: if it was used up, writes of the machine would fail."""
        usage = self._virsh.usage(uuid)
        wanted = sum(usage[disk].size for disk in disks if disk in usage) * ROOM // 100
        with naming(f"look at {self._place}"):
            free = os.statvfs(self._place)
        if free.f_bavail * free.f_frsize < wanted:
            raise Refused(
                f"{self._place} has no room for what {name} writes meanwhile: {wanted} bytes are needed",
                _ELSEWHERE,
            )

    def _make(self, uuid: str, mark: str) -> None:
        with naming(f"write to {self._place}"):
            os.close(os.open(self._path(f"{uuid}.{mark}"), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            os.mkdir(self._path(f"{uuid}.own"), 0o700)
            os.mkdir(self._path(uuid), 0o700)
            if os.geteuid() == 0:
                with suppress(FileNotFoundError):
                    owner = os.stat(QEMU)
                    os.chown(self._path(uuid), owner.st_uid, owner.st_gid)

    def _describe(self, uuid: str, disks: Sequence[str], targets: Sequence[str]) -> str:
        """Writes the XML of a backup job. Returns its path."""
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
        path = self._path(f"{uuid}.own", "backup.xml")
        with naming(f"write {path}"), io.FileIO(path, "x") as file:
            Writer(file, path).write(tostring(root))
        return path

    def _firmware(self, uuid: str, machine: Machine) -> dict[str, str]:
        """Copies the variables of the firmware, which no backup job has."""
        for disk in machine.disks:
            if disk.name == NVRAM and disk.problem is None and os.path.lexists(disk.source):
                path = self._path(f"{uuid}.own", NVRAM)
                with naming(f"copy {disk.source}"):
                    shutil.copyfile(disk.source, path)
                return {NVRAM: f"{'file' if disk.form == 'raw' else disk.form}:{path}"}
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
        if uuid in self._virsh.running() and self._virsh.backup_has(uuid, self._socket(uuid)):
            self._virsh.abort(uuid)
        with naming(f"remove {self._path(uuid)}"):
            for directory in (self._path(uuid), self._path(f"{uuid}.own")):
                with suppress(FileNotFoundError):
                    shutil.rmtree(directory)
            for held, mark in self.marks().items():
                if held == uuid:
                    os.unlink(self._path(f"{uuid}.{mark}"))

    def _word(self, uuid: str, disk: str) -> str:
        return f"nbd:nbd+unix:///{quote(disk)}?socket={quote(self._socket(uuid))}"

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
            deadline = time.monotonic() + _PATIENCE
            while not try_lock(fd):
                if time.monotonic() > deadline:
                    raise Failed(f"another run has held {self._place} for {_PATIENCE:.0f} seconds")
                time.sleep(_PAUSE)
            yield
        finally:
            os.close(fd)
