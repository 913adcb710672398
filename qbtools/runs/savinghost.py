"""Saves the domains of a host: finds what can be saved, and takes and releases snapshots at the right time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from qbtools.domains import names, selection, trim
from qbtools.domains.qubesxml import Metadata
from qbtools.domains.selection import LeftOut
from qbtools.errors import Failed, QbError, Refused
from qbtools.hosts import saving
from qbtools.hosts.client import Host
from qbtools.hosts.saving import Failing, File, Machine
from qbtools.hosts.unsaved import Unsaved
from qbtools.runs.creating import LATE, Contents, Saved, volume_source
from qbtools.volumes import snapshots
from qbtools.volumes.freezing import Frozen
from qbtools.volumes.kind import SourceOptions
from qbtools.volumes.marks import Mark

THAW_LIMIT = 30.0
"""The most seconds for which a machine may be frozen."""


class Choice(NamedTuple):
    """The options of the user for saving a host."""

    named: Sequence[str]
    include: Sequence[str]
    exclude: Sequence[str]


class Survey(NamedTuple):
    """The machines of a host that can be saved, after all checks. failing: the domains that cannot be saved.

    left_out: the domains that the user does not want. unsaved: other things that are not saved: parts of saved domains,
    and things that belong to no domain. inventory: the metadata of the host. freezer: for saving.files.
    """

    machines: Sequence[Machine]
    failing: Sequence[Failing]
    left_out: Sequence[LeftOut]
    unsaved: Sequence[Unsaved]
    inventory: Metadata
    freezer: str | None

    def archive(self) -> Archive:
        """The contents of an archive of the machines. Errors as trim.trimmed()."""
        home = next((name for machine in self.machines for name, _, _ in machine.files if names.is_home(name)), None)
        contents = {machine.name: machine.contents() for machine in self.machines}
        document, paths = trim.trimmed(self.inventory, contents, home)
        return Archive(list(saving.files(self.machines, paths, self.freezer)), document)


class Archive(NamedTuple):
    """The metadata of an archive, and the files after it in order."""

    files: Sequence[File]
    document: bytes


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
    machines, failing = saving.survey(host, chosen, how)
    unsaved += [one for machine in machines for one in machine.left_out]  # qb-tree warns of these
    return Survey(machines, failing, left_out, unsaved, inventory, host.freezer())


class Taking:
    """The snapshots of a run. Those of a domain are all taken before its first volume is read, and released after its
    last. The end of the `with` releases the rest."""

    def __init__(self, archive: Archive, how: SourceOptions) -> None:
        self._files = {file.archive_name: file for file in archive.files}
        self._how = how
        self._specs: list[str] = []
        files = [Saved(*self._saved(file), _label(file)) for file in archive.files]
        self.contents = Contents(archive.document, files)

    def _saved(self, file: File) -> tuple[str, str, int]:
        if file.kind == "volume":
            source = LATE if file.of else volume_source(file.word, file.size, self._how)
        elif file.kind == "empty":
            source = "inline:0"
        else:
            source = f"file:{file.size}:{file.word}" if file.kind == "file" else f"tree:{file.word}"
        if "\n" in source:
            raise Refused(f"{file.domain} has a file with a newline in its name: {file.word}")
        return file.archive_name, source, file.data

    def source(self, name: str) -> str:
        """The source of a volume of a machine whose snapshots are taken together. Errors as snapshots.take(), for the
        first volume of a domain and for the others."""
        file = self._files[name]
        if file.at == 1:
            self.release()
            volumes = [one.word for one in self._files.values() if one.kind == "volume" and one.domain == file.domain]
            still = None
            if file.freezer is not None:
                freeze, thaw = (f"{file.freezer} {verb} {file.domain}" for verb in ("freeze", "thaw"))
                still = Frozen(freeze, thaw, THAW_LIMIT, self._how.warn)
            self._specs = snapshots.take(volumes, Mark.own(), self._how, still)
        if not self._specs:
            raise Failed(f"{file.domain}: no snapshot was taken")
        return volume_source(self._specs[file.at - 1], file.size, None)

    def domain(self, name: str) -> str:
        """The domain of a file."""
        return self._files[name].domain

    def read(self, name: str) -> None:
        """Called when a file was read or has failed. After the last one of a domain its snapshots are released."""
        file = self._files.get(name)
        if file is not None and file.of and file.at == file.of:
            self.release()

    def release(self) -> None:
        """Releases all snapshots. If one cannot be removed, there is a warning; the next run removes it."""
        specs, self._specs = self._specs, []
        if not specs:
            return
        try:
            snapshots.release(specs)
        except QbError as error:
            self._how.warn(f"a snapshot cannot be removed: {error.message}")

    @property
    def held(self) -> bool:
        """Whether there are snapshots to release."""
        return bool(self._specs)


def _label(file: File) -> str:
    """DOMAIN:VOLUME, the label for progress."""
    return f"{file.domain}:{file.archive_name.rpartition('/')[2].removesuffix('.img')}"
