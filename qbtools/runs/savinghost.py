"""Saves the domains of a host: finds what can be saved, and takes and releases snapshots at the right time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qbtools.domains import names, selection, trim
from qbtools.domains.qubesxml import Metadata
from qbtools.domains.selection import LeftOut
from qbtools.errors import Failed, QbError, Refused
from qbtools.hosts import saving
from qbtools.hosts.client import Host
from qbtools.hosts.listing import Held
from qbtools.hosts.saving import Failing, File, Machine
from qbtools.hosts.unsaved import Unsaved
from qbtools.lean import NamedTuple
from qbtools.runs import creating
from qbtools.runs.creating import LATE, Contents, Indexing, Saved, Taken, volume_source
from qbtools.volumes import snapshots
from qbtools.volumes.freezing import Frozen
from qbtools.volumes.kind import SourceOptions
from qbtools.volumes.marks import Mark

THAW_LIMIT = 30.0
"""The most seconds for which a machine may be frozen."""

HURRY = 60.0
"""The most seconds for the release of what a host holds, when the run ends early."""


class Choice(NamedTuple):
    """The options of the user for saving a host."""

    named: Sequence[str]
    include: Sequence[str]
    exclude: Sequence[str]


class Survey(NamedTuple):
    """The machines of a host that can be saved, after all checks. failing: the domains that cannot be saved.

    left_out: the domains that the user does not want. unsaved: other things that are not saved: parts of saved domains,
    and things that belong to no domain. inventory: the metadata of the host. freezer: for saving.files. host: the one
    that holds volumes, None if it cannot.
    """

    machines: Sequence[Machine]
    failing: Sequence[Failing]
    left_out: Sequence[LeftOut]
    unsaved: Sequence[Unsaved]
    inventory: Metadata
    freezer: str | None
    host: Host | None = None

    def archive(self, numbers: Mapping[str, int] | None = None) -> Archive:
        """The contents of an archive of the machines. Errors as trim.trimmed().

        numbers: of the domains, for an archive of a series. Its files are in an order that does not depend on the host,
        because an increment must have the order of its base.
        """
        machines = self.machines if numbers is None else _ordered(self.machines, numbers)
        home = next((name for machine in machines for name, _, _ in machine.files if names.is_home(name)), None)
        contents = {machine.name: machine.contents() for machine in machines}
        document, paths = trim.trimmed(self.inventory, contents, home, numbers)
        return Archive(list(saving.files(machines, paths, self.freezer)), document, self.host)


def _ordered(machines: Sequence[Machine], numbers: Mapping[str, int]) -> list[Machine]:
    """The machines by their numbers, with dom0 last, each with its volumes and files by their names."""
    found = sorted(machines, key=lambda machine: (machine.name == names.ADMIN, numbers.get(machine.name, 0)))
    return [
        machine._replace(volumes=sorted(machine.volumes, key=lambda one: one.name), files=sorted(machine.files))
        for machine in found
    ]


class Archive(NamedTuple):
    """The metadata of an archive, and the files after it in order. host: holds the volumes of its domains, or None."""

    files: Sequence[File]
    document: bytes
    host: Host | None = None


def look(host: Host, choice: Choice, how: SourceOptions) -> Survey:
    """Checks everything that will be saved, and warns of everything on the host that is not saved.

    Errors as selection.for_saving(), and those of the host.
    """
    inventory = host.inventory()
    chosen, left_out = selection.for_saving(inventory, choice.named, choice.include, choice.exclude)
    wanted = {None, *(domain.name for domain in chosen)}
    unsaved = [one for one in host.unsaved() if one.domain in wanted]
    for one in unsaved:
        how.warn(f"{one.path} is left out: {one.reason}")
    holding = host.holds()
    machines, failing = saving.survey(host, chosen, how, holding)
    unsaved += [one for machine in machines for one in machine.left_out]  # qb-tree warns of these
    return Survey(machines, failing, left_out, unsaved, inventory, host.freezer(), host if holding else None)


def release_ended(survey: Survey, how: SourceOptions) -> None:
    """Releases what a run holds that has ended, with a note or a warning for each domain."""
    for domain in survey.inventory.domains if survey.host is not None else ():
        mark = Mark.parse(domain.features.get(names.HELD, ""))
        if mark is not None and mark.dead() and survey.host is not None:
            try:
                survey.host.release(domain.name, str(mark))
                how.note(f"released {domain.name}, which a run held that has ended")
            except QbError as error:
                how.warn(f"{domain.name} is still held for a run that has ended: {error.message}")


class Taking:
    """The snapshots of a run, and what the host holds for it. For each domain, all is taken before its first volume is
    read, and released after its last, without what a series keeps. The caller must release the rest at the end.

    causes: what the host said when it released a domain, which tells why it could not be read.
    """

    def __init__(self, archive: Archive, how: SourceOptions, indexing: Indexing | None = None) -> None:
        """indexing: for an archive of a series."""
        self._archive = archive
        self._files = {file.archive_name: file for file in archive.files}
        self._volumes: dict[str, list[File]] = {}
        for file in archive.files:
            if file.kind == "volume":
                self._volumes.setdefault(file.domain, []).append(file)
        self._how = how
        self._indexing = indexing
        self._take = creating.take if indexing is None else indexing.take
        self._taken = Taken((), ())
        self._plain: list[str] = []
        self._read: Mapping[str, Held] = {}
        self._held = ""
        self.causes: dict[str, str] = {}
        files = [Saved(*self._saved(file), _label(file)) for file in archive.files]
        self.contents = Contents(archive.document, files)

    def _saved(self, file: File) -> tuple[str, str, int]:
        if file.kind == "volume":
            source = LATE if file.of else self._volume(file, file.word, self._how)
        elif file.kind == "empty":
            source = "inline:0"
        else:
            source = f"file:{file.size}:{file.word}" if file.kind == "file" else f"tree:{file.word}"
        if "\n" in source:
            raise Refused(f"{file.domain} has a file with a newline in its name: {file.word}")
        return file.archive_name, source, file.data

    def source(self, name: str) -> str:
        """The source of a volume of a machine whose volumes are made readable together. Errors as snapshots.take() and
        Host.hold(), for the first volume of a domain and for the others."""
        file = self._files[name]
        if file.at == 1:
            self.release()
            volumes = self._volumes[file.domain]
            if file.held:
                self._hold(file.domain, volumes)
                return self._next(file)
            still = None
            if file.freezer is not None:
                freeze, thaw = (f"{file.freezer} {verb} {file.domain}" for verb in ("freeze", "thaw"))
                still = Frozen(freeze, thaw, THAW_LIMIT, self._how.warn)
            self._taken = self._take({one.archive_name: one.word for one in volumes}, self._how, still)
        return self._next(file)

    def _next(self, file: File) -> str:
        if self._plain:
            return self._volume(file, self._plain[file.at - 1], self._how._replace(state=None))
        if not self._taken.specs:
            raise Failed(f"{file.domain}: no snapshot was taken")
        return self._volume(file, self._taken.specs[file.at - 1], None)

    def _volume(self, file: File, word: str, how: SourceOptions | None) -> str:
        front = "volume:"
        if self._indexing is not None:
            front = self._indexing.source(file.archive_name, file.word, self._read.get(file.archive_name))
        return volume_source(word, file.size, how, front)

    def _hold(self, domain: str, volumes: Sequence[File]) -> None:
        """Lets the host hold a domain, and takes snapshots of what it names for its volumes if that is possible."""
        host = self._archive.host
        if host is None:
            raise Failed(f"{domain}: its host cannot hold it")
        self._held = domain
        try:
            points = ("", "") if self._indexing is None else self._indexing.points(domain)
            held = host.hold(domain, str(Mark.own()), *points)
            if missing := {_volume(file) for file in volumes} - held.keys():
                raise Failed(f"{domain}: the host holds no volume {min(missing)}")
            self._read = {file.archive_name: held[_volume(file)] for file in volumes}
            words = {name: one.word for name, one in self._read.items()}
            plain = words == {file.archive_name: file.word for file in volumes}
            take = self._take if plain else creating.take  # what the host made for this run may go with its place
            try:
                self._taken = take(words, self._how, None)
            except Refused:  # they are exports, or files that cannot be cloned
                self._plain = list(words.values())
                if plain:
                    self._how.warn(f"no snapshot of {domain} can be taken: do not start it before it has been read")
        except BaseException:
            self.release()
            raise

    def domain(self, name: str) -> str:
        """The domain of a file."""
        return self._files[name].domain

    def read(self, name: str) -> None:
        """Called when a file was read or has failed. After the last one of a domain its snapshots are released."""
        file = self._files.get(name)
        if file is not None and file.of and file.at == file.of:
            self.release()

    def release(self) -> None:
        """Releases all snapshots, and what the host holds. If that fails, there is a warning; the next run does it."""
        own, self._taken, self._plain, self._read = self._taken.own, Taken((), ()), [], {}
        if own:
            try:
                snapshots.release(own)
            except QbError as error:
                self._how.warn(f"a snapshot cannot be removed: {error.message}")
        held, self._held = self._held, ""
        if held and self._archive.host is not None:
            try:
                if said := self._archive.host.release(held, str(Mark.own())):
                    self.causes[held] = said[0]
            except QbError as error:
                self._how.warn(f"{held} is still held: {error.message}")

    def hurry(self) -> None:
        """From now on the host gets at most HURRY seconds for each call, because the run ends early."""
        if self._archive.host is not None:
            self._archive.host.hurry(HURRY)

    @property
    def held(self) -> bool:
        """Whether there is anything to release."""
        return bool(self._taken.own or self._held)


def _label(file: File) -> str:
    """DOMAIN:VOLUME, the label for progress."""
    return f"{file.domain}:{_volume(file)}"


def _volume(file: File) -> str:
    """The name of its volume, if it is one."""
    return file.archive_name.rpartition("/")[2].removesuffix(".img")
