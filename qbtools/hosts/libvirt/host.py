"""The verbs of qb-host(7) for the domains of libvirt."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from xml.etree.ElementTree import Element, SubElement

from qbtools.domains import compose, names, safexml
from qbtools.domains.defaults import Defaults
from qbtools.domains.qubesxml import LIBVIRT
from qbtools.errors import Damaged, Failed, UsageError
from qbtools.hosts.libvirt import checkpoints, naming, tpm
from qbtools.hosts.libvirt.checkpoints import Wish
from qbtools.hosts.libvirt.holding import Holds
from qbtools.hosts.libvirt.machine import NVRAM, RAW, Disk, Machine
from qbtools.hosts.libvirt.records import merged
from qbtools.hosts.libvirt.unfinished import Unfinished
from qbtools.hosts.libvirt.virsh import Virsh
from qbtools.hosts.listing import Held
from qbtools.hosts.unsaved import Unsaved
from qbtools.hosts.verbtext import contents, good, line
from qbtools.lean import NamedTuple
from qbtools.volumes import locate
from qbtools.volumes.kind import SourceOptions
from qbtools.volumes.marks import Kept

_HELD = "nbd:held"
_UNFINISHED = "unfinished"
_PATH_HINT = "give the disk a path of printable ASCII, such as a symbolic link"
_IMAGES = ("qcow2", "vmdk", "vdi", "vhdx")  # each is a kind of volume
_CHECKPOINTS = "--with-checkpoint"
_FACTS = (
    ("--with-managed-save", "the memory of the machine, saved by libvirt", "only its volumes are saved"),
    ("--with-snapshot", "the snapshots of the machine in libvirt", "only its present state is saved"),
    (
        _CHECKPOINTS,
        "the checkpoints of the machine in libvirt",
        "they are of use only with the original volumes",
    ),
)


class _Found(NamedTuple):
    """A domain. machine: None if its XML cannot be used, and then problem says why."""

    name: str
    uuid: str
    machine: Machine | None
    problem: str = ""


class LibvirtHost:
    """The verbs. They return their output; see qb-host(7)."""

    def __init__(
        self,
        uri: str,
        place: str,
        pool: str,
        keep_macs: bool,
        wish: Wish,
        note: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        """uri: as uri.checked() returns it. place: the directory for what is held and what is unfinished.

        pool: the pool or the directory of new volumes; empty: as the plan says. keep_macs: machines that are restored
        keep their MAC addresses, also with a new UUID. wish: the checkpoints for hold().
        """
        self._virsh = Virsh(uri)
        self._states = tpm.States(uri, os.environ)
        self._holds = Holds(self._virsh, place, warn)
        self._wish = wish
        unfinished = os.path.join(place, _UNFINISHED)
        self._unfinished = Unfinished(self._virsh, self._states, unfinished, pool, keep_macs, note, warn)
        self._warn = warn

    def inventory(self) -> bytes:
        """The metadata of all domains. Warns of each that has another name in it."""
        root = Element("qubes")
        domains = compose.add_domains(root)
        marks = self._holds.marks()
        unfinished = {one.name: one for one in self._unfinished.domains()}
        number = 0
        for number, found in enumerate(self._all(), 1):
            unfinished.pop(found.name, None)  # it was finished in the meantime
            if found.machine is None:
                continue
            machine = found.machine
            volumes = {disk.name: None for disk in _disks(machine)}
            features = {names.HELD: marks[found.uuid]} if found.uuid in marks else {}
            element = compose.add_domain(domains, number, found.name, volumes, features)
            SubElement(element, LIBVIRT).append(machine.element)
            if machine.name != found.name:
                self._warn(f"the domain {names.quoted(machine.name)} is called {found.name} in an archive")
        merged(root, unfinished.values(), number)
        return safexml.serialise(root)

    def volumes(self, name: str) -> list[str]:
        """A line for each volume. Failed if one of them has no word for qb-volread."""
        if name == names.ADMIN:
            return []
        if self._unfinished.has(name):
            return self._unfinished.volumes(name)
        found, machine = self._domain(name)
        running = found.uuid in self._virsh.running()
        usage = self._virsh.usage(found.uuid) if running else {}
        lines = []
        for disk in _disks(machine):
            word = self._plain_or_held(name, disk, running)
            if disk.name in usage and (disk.form != RAW or word == _HELD):  # it cannot be opened while the machine runs
                size, used = usage[disk.name]
            else:
                size, used = _sizes(name, disk, word)
            writes = running and disk.name != NVRAM
            lines.append(line(disk.name, word, str(size), str(min(used, size)), "yes" if writes else "no", "yes"))
        return lines

    def contents(self, domains: Iterable[str]) -> Iterator[str]:
        """The lines of volumes() and files() for each of these domains, as verbtext.contents()."""
        return contents(domains, self.volumes, self.files)

    def hold(self, name: str, mark: str) -> list[str]:
        """A line for each volume, which tells how it is read, and the last line."""
        if self._unfinished.has(name):
            return [line(*text.split("\t")[:2]) for text in self._unfinished.volumes(name)] + [line("end")]
        found, machine = self._domain(name)
        if found.uuid in self._virsh.running():
            words = self._holds.begin(name, found.uuid, machine, mark, self._wish)
        else:
            words = {disk.name: Held(self._word(name, disk)) for disk in _disks(machine)}
        return [*(line(*held.fields(disk)) for disk, held in words.items()), line("end")]

    def release(self, name: str, mark: str) -> None:
        """Ends hold()."""
        uuids = naming.assigned(self._virsh.domains())
        if name in uuids:
            self._holds.end(uuids[name], mark)
        else:
            self._holds.end_lost(list(uuids.values()), mark)

    def forget(self, name: str, mark: str) -> list[str]:
        """Removes the checkpoint with that name of a domain. A line `later` if it cannot be removed now.

        UsageError if it is not one of qbtools. A domain that is gone may have another name now.
        """
        if Kept.parse(mark) is None:
            raise UsageError(f"{mark} is not the name of a checkpoint of qbtools")
        uuids = naming.assigned(self._virsh.domains())
        having = sorted(self._virsh.uuids("--all", _CHECKPOINTS))
        wanted = [uuid for uuid in having if name not in uuids or uuids[name] == uuid]
        gone = [checkpoints.remove(self._virsh, uuid, mark) for uuid in wanted]
        return [] if all(gone) else [line("later")]

    def files(self, name: str) -> list[str]:
        """A line for the state of its TPM, if it has one, or if an unfinished domain gets one."""
        if name == names.ADMIN:
            return []
        if self._unfinished.has(name):
            return self._unfinished.files(name)
        found, machine = self._domain(name)
        path = self._states.path(found.uuid)
        return [line(tpm.FILE, path)] if machine.has_tpm and os.path.isdir(path) else []

    def unsaved(self) -> list[str]:
        """A line for each part of a domain that is not saved, and for each domain whose XML cannot be used."""
        lines = []
        facts = [(self._having(option), what, reason) for option, what, reason in _FACTS]
        for found in self._all():
            if found.machine is None:
                lines.append(Unsaved(None, f"the domain {found.name}", found.problem))
                continue
            lines += [Unsaved(found.name, left.what, left.reason) for left in found.machine.left]
            lines += [Unsaved(found.name, what, reason) for uuids, what, reason in facts if found.uuid in uuids]
            path = self._states.path(found.uuid)
            if found.machine.has_tpm and not os.path.isdir(path):
                lines.append(Unsaved(found.name, path, "the state of the TPM is missing"))
        return [one.to_line() for one in lines]

    def defaults(self) -> str:
        """The storage pools, and the state of TPMs: a domain of libvirt has no properties with defaults."""
        pools = self._unfinished.pools()
        # If the first one cannot be listed, another one would count as the default.
        listed = good(pools) if good(pools[:1]) else ()
        return Defaults(pools=listed, further=(tpm.FILE,)).to_lines()

    def check(self, document: bytes) -> None:
        """Raises what create() would raise for each domain of a document. Changes nothing."""
        self._unfinished.check(document)

    def create(self, document: bytes) -> list[str]:
        """Creates the volumes and the record of the domain of a document. A line for each volume."""
        return self._unfinished.create(document)

    def set(self, name: str, document: bytes) -> None:
        """Sets everything in the document for an unfinished domain. If it is finished, libvirt gets it."""
        self._unfinished.set(name, document)

    def remove(self, name: str, mark: str | None = None) -> None:
        """Removes an unfinished domain, if mark is None or that of its run; Refused if libvirt has the domain."""
        self._unfinished.remove(name, mark)

    def _having(self, option: str) -> frozenset[str]:
        """The UUIDs of the domains that `virsh list` lists with an option, not for what is ours alone."""
        found = self._virsh.uuids("--all", option)
        if option != _CHECKPOINTS:
            return found
        return frozenset(uuid for uuid in found if checkpoints.foreign(self._virsh, uuid))

    def _all(self) -> Iterator[_Found]:
        for name, uuid in sorted(naming.assigned(self._virsh.domains()).items()):
            if (found := self._found(name, uuid)) is not None:
                yield found

    def _found(self, name: str, uuid: str) -> _Found | None:
        """The domain; None if it does not exist any more."""
        untrusted_xml = self._virsh.xml(uuid)
        if untrusted_xml is None:
            return None
        try:
            return _Found(name, uuid, Machine(untrusted_xml))
        except Damaged as error:
            return _Found(name, uuid, None, error.message)

    def _domain(self, name: str) -> tuple[_Found, Machine]:
        uuid = naming.assigned(self._virsh.domains()).get(name)
        found = None if uuid is None else self._found(name, uuid)
        if found is None:
            raise Failed(f"there is no domain {name}")
        if found.machine is None:
            raise Failed(f"{name}: {found.problem}")
        return found, found.machine

    def _plain_or_held(self, name: str, disk: Disk, running: bool) -> str:
        """The word of a disk; _HELD for one of a running machine that can only be held."""
        try:
            return self._word(name, disk)
        except Failed:
            if not running or disk.name == NVRAM:
                raise
            return _HELD

    def _word(self, name: str, disk: Disk) -> str:
        """The word of a disk for qb-volread."""
        path = disk.source
        if disk.problem is not None:
            raise Failed(f"{name}:{disk.name} cannot be read while the machine is off: {disk.problem}")
        if disk.pool:
            path = self._virsh.volume_path(disk.pool, disk.source)
        if not path.startswith("/"):
            raise Failed(f"{name}:{disk.name} has no absolute path: {path}")
        if not path.isascii() or not path.isprintable():
            raise Failed(f"{name}:{disk.name} has a path that is not printable ASCII: {path}", _PATH_HINT)
        if disk.form in _IMAGES:
            return f"{disk.form}:{path}"
        if disk.form != RAW:
            raise Failed(f"{name}:{disk.name} has the format {disk.form}, which qbtools cannot read")
        try:
            return locate.explicit(path)
        except UsageError as error:
            raise Failed(f"{name}:{disk.name}: {error.message}") from error


def _disks(machine: Machine) -> list[Disk]:
    """Its disks. The variables of the firmware have no file before the first start."""
    return [disk for disk in machine.disks if disk.name != NVRAM or disk.kind != "file" or os.path.lexists(disk.source)]


def _sizes(name: str, disk: Disk, word: str) -> tuple[int, int]:
    try:
        return locate.sizes(word, SourceOptions(opaque=True))
    except UsageError as error:
        raise Failed(f"{name}:{disk.name}: {error.message}") from error
