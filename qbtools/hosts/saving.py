"""Decides what is saved from a host: which domains, in which state, in which order, and whether that is possible.

Everything is checked before the first byte of an archive. A machine cannot be saved if a volume of it is missing or
cannot be read, or if it runs and no snapshot can be taken.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence

from qbtools import treewalk
from qbtools.domains import names, selection
from qbtools.domains.compose import NewVolume
from qbtools.errors import Failed, OtherPython, QbError, Refused
from qbtools.formats import chunks
from qbtools.hosts.unsaved import Unsaved
from qbtools.lean import TYPE_CHECKING, NamedTuple, suppress
from qbtools.volumes import locate, snapshots
from qbtools.volumes.kind import SourceOptions, naming
from qbtools.volumes.marks import Mark

if TYPE_CHECKING:
    from qbtools.domains.qubesxml import Domain
    from qbtools.hosts.client import Host
    from qbtools.hosts.listing import Contents, HostVolume

SNAPSHOT = "snapshot"
BEFORE_START = "before-start"
CURRENT = "current"
STOPPED = "stopped"
"""The states that are saved: as it is now, before the machine's start, the plain volumes even if they are in use, and
the plain volumes of a stopped machine (which must not be written to meanwhile)."""


_RUNS = "shut it down, or use --state=current, but the copy may be inconsistent"


class Machine(NamedTuple):
    """A domain that is saved.

    volumes: those that are saved; files: name below its path in the archive, bytes, path here; left_out: parts of its
    directories that are not saved. held: the host holds the volumes while they are read, and says how to read them.
    """

    name: str
    kind: str
    volumes: Sequence[HostVolume]
    files: Sequence[tuple[str, int, str]]
    state: str
    left_out: Sequence[Unsaved] = ()
    held: bool = False

    @property
    def running(self) -> bool:
        return any(volume.running for volume in self.volumes)

    @property
    def at_once(self) -> bool:
        """Whether all its volumes are made readable at one point in time before it is read."""
        return (self.held or self.state in (SNAPSHOT, BEFORE_START)) and bool(self.volumes)

    @property
    def size(self) -> int:
        """Bytes of its volumes."""
        return sum(volume.size for volume in self.volumes)

    @property
    def used(self) -> int:
        """Bytes of them that are in use."""
        return sum(volume.used for volume in self.volumes)

    def contents(self) -> list[NewVolume]:
        """Everything that is saved of it, for the metadata of an archive."""
        return [
            *(NewVolume(volume.name, volume.size, min(volume.used, volume.size)) for volume in self.volumes),
            *(NewVolume(name, size, size) for name, size, _path in self.files),
        ]


class Failing(NamedTuple):
    """A domain that cannot be saved. error: the reason."""

    name: str
    error: QbError

    @property
    def reason(self) -> str:
        """The reason, with the hint if there is one."""
        text = self.error.message.removeprefix(f"{self.name}: ")
        return f"{text} ({self.error.hint})" if self.error.hint else text


class Found(NamedTuple):
    """The result of checking the domains, both parts in the order of the host."""

    machines: Sequence[Machine]
    failing: Sequence[Failing]


def survey(host: Host, chosen: Sequence[Domain], how: SourceOptions, holding: bool = False) -> Found:
    """The domains to save, each checked as it will be read, and those that cannot be saved.

    holding: the host can hold the volumes of a domain. What a running machine writes to is not opened then.

    A domain cannot be saved if it runs and no snapshot can be taken of one of its volumes (Refused), or if one of its
    volumes is missing, cannot be read, or does not have the size that the host says (Failed).
    """
    machines, failing = [], []
    known = host.contents([domain.name for domain in chosen if domain.name != names.ADMIN]) if len(chosen) > 1 else {}
    for domain in chosen:
        try:
            machines.append(_machine(host, domain, how, holding and how.state in (None, SNAPSHOT), known))
        except QbError as error:
            failing.append(Failing(domain.name, error))
    return Found(machines, failing)


def _machine(host: Host, domain: Domain, how: SourceOptions, held: bool, known: Mapping[str, Contents]) -> Machine:
    if domain.name == names.ADMIN:
        homes = [(name, path) for name, path in host.files(domain.name) if names.is_home(name)]
        if len(homes) != 1:
            if not homes:
                raise Failed(f"the host has no home of {names.ADMIN} to save")
            raise Failed(f"the host has {len(homes)} homes of {names.ADMIN}, and only one can be saved")
        return Machine(domain.name, domain.kind, (), *_checked_files(domain.name, homes, STOPPED))
    wanted = {volume.name for volume in selection.saved_volumes(domain)}
    listed, further = known.get(domain.name) or (host.volumes(domain.name), host.files(domain.name))
    volumes = [volume for volume in listed if volume.save]
    if missing := wanted - {volume.name for volume in volumes}:
        raise Failed(f"{domain.name}: the host has no volume {min(missing)}, which its metadata says is saved")
    volumes = [volume for volume in volumes if volume.name in wanted]
    if held and any(volume.running for volume in volumes):
        state = SNAPSHOT
    else:
        for volume in volumes:
            _check_size(domain.name, volume, how)
        state = _state(domain.name, volumes, how)
    return Machine(domain.name, domain.kind, volumes, *_checked_files(domain.name, further, state), held=held)


def _check_size(domain: str, volume: HostVolume, how: SourceOptions) -> None:
    size, _data = locate.sizes(volume.source, how)
    if size != volume.size:
        raise Failed(f"{domain}:{volume.name} has {size} bytes, not {volume.size} as the host says")


def _checked_files(
    domain: str, files: Sequence[tuple[str, str]], state: str
) -> tuple[list[tuple[str, int, str]], str, list[Unsaved]]:
    """Files, state and left_out of a Machine."""
    found = []
    left_out: list[Unsaved] = []
    for name, path in files:
        if problem := chunks.name_problem(name):
            raise Failed(f"{domain}: the host calls a file {name}: {problem}")
        with naming(f"read {path}"):
            status = os.stat(path)
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        if stat.S_ISDIR(status.st_mode):
            size, missing = treewalk.walk(path)
            left_out += [Unsaved(domain, f"{path}/{one.path}", one.reason) for one in missing]
            found.append((name, size, path))
        elif stat.S_ISREG(status.st_mode):
            found.append((name, status.st_size, path))
        else:
            raise Refused(f"{path} is neither a file nor a directory")
    return found, state, left_out


def _state(domain: str, volumes: Sequence[HostVolume], how: SourceOptions) -> str:
    """The state in which all volumes of a domain will be read; each is opened as it will be then."""
    running = any(volume.running for volume in volumes)
    if how.state == CURRENT:
        _open_each(volumes, how)
        return CURRENT
    if not volumes:
        return STOPPED
    try:
        snapshots.check([volume.source for volume in volumes], Mark.own(), how)
    except Refused as error:
        if running:
            raise Refused(f"{domain}: the machine runs; {_user(volumes, how)}{error.message}", _RUNS) from None
        if how.state is not None:
            raise Refused(f"{domain}: {error.message}", error.hint) from None
        how.note(f"{domain}: {error.message}: reading the volumes themselves")
        _open_each(volumes, how)
        return STOPPED
    if how.state is not None:
        return how.state
    kept = all(_start_is_kept(volume.source) for volume in volumes if volume.running)
    return BEFORE_START if running and kept else SNAPSHOT


def _user(volumes: Sequence[HostVolume], how: SourceOptions) -> str:
    """Text that names the user of a running machine's volumes, followed by `; `; empty if none is found."""
    try:
        _open_each([volume for volume in volumes if volume.running], how._replace(state=None))
    except Refused as error:
        return f"{error.message}; "
    except QbError:  # it is ending
        pass
    return ""


def _start_is_kept(word: str) -> bool:
    """Whether the state to read is from before the machine's start; the machine then writes to another volume."""
    kind, name = locate.existing(word)
    if kind.scheme != "lvm":
        return False
    from qbtools.volumes.lvm import facts, source

    volume, group = facts.volume(name)
    return source.choose(volume, group, SourceOptions())[1]


def _open_each(volumes: Sequence[HostVolume], how: SourceOptions) -> None:
    for volume in volumes:
        with suppress(OtherPython):  # the stage that reads the volume will look
            locate.open_source(volume.source, how).close()


class File(NamedTuple):
    """One file of the archive.

    kind: `volume`, `file`, `directory`, `empty`. size: bytes of it; data: those that are to be read.
    at, of: it is number at (from 1) of `of` volumes whose snapshots are taken together; 0 of 0 for others.
    freezer: shell text before `freeze DOMAIN` and `thaw DOMAIN`; None if the machine is not frozen.
    word: the volume for qb-volread, or a path. held: as in Machine.
    """

    archive_name: str
    kind: str
    size: int
    data: int
    domain: str
    state: str
    at: int
    of: int
    freezer: str | None
    word: str
    held: bool = False


def files(machines: Sequence[Machine], paths: Mapping[str, str], freezer: str | None) -> Iterator[File]:
    """The files of the archive after the metadata, domain by domain.

    paths: the directory of each domain in the archive. freezer: shell text that freezes running machines, or None.
    """
    for machine in machines:
        path = paths[machine.name]
        of = len(machine.volumes) if machine.at_once else 0
        still = freezer if machine.running and machine.state == SNAPSHOT and not machine.held else None
        about = machine.name, machine.state
        for number, volume in enumerate(machine.volumes, 1):
            at = number if of else 0
            name = f"{path}{volume.name}.img"
            yield File(name, "volume", volume.size, volume.used, *about, at, of, still, volume.source, machine.held)
        for name, size, source in machine.files:
            archived = path if names.is_home(name) else path + name
            kind = "directory" if os.path.isdir(source) else "file"
            yield File(archived, kind, size, size, *about, 0, 0, None, source)
        if not machine.volumes and not machine.files:
            yield File(f"{path}empty", "empty", 0, 0, *about, 0, 0, None, "")
