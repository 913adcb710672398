"""A run that saves: the files of the archive, their sources, and their results."""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

from qbtools.domains import compose, inventory, names, safexml
from qbtools.domains.compose import NewVolume
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Failed, QbError, UsageError
from qbtools.formats.chunks import METADATA
from qbtools.hosts.listing import Held
from qbtools.hosts.results import Passage
from qbtools.lean import NamedTuple
from qbtools.runs import verdict
from qbtools.runs.hearing import Happened
from qbtools.runs.wiring import Wiring
from qbtools.streams import Reader
from qbtools.volumes import locate, snapshots
from qbtools.volumes.kind import SourceOptions
from qbtools.volumes.marks import Mark

_WORD = re.compile(r"([^:=/]+):([^:=/]+)=(.*)", re.DOTALL)
_HINT = "write DOMAIN:VOLUME=SOURCE"

LATE = "?"
"""The source of a file that the stages ask for later, when they reach the file."""

_NONE = "!"  # the answer if there is none
_VOLUMES = ("volume:", "changes:")


class Saved(NamedTuple):
    """A file of the archive. source: for bin/qb-backup, `KIND:REST`, or LATE. data: bytes to read.

    label: its name for progress.
    """

    archive_name: str
    source: str
    data: int = 0
    label: str = ""

    def line(self, source: str) -> str:
        """Its line of the list, with the source that is known now."""
        labelled = f"as:{self.label}={source}" if self.label and source.startswith(_VOLUMES) else source
        return f"{self.archive_name}\t{labelled}\n"


class Contents(NamedTuple):
    """The contents of an archive: the metadata, and the files in order."""

    metadata: bytes
    files: Sequence[Saved]

    @property
    def total(self) -> int:
        """Bytes that will be read."""
        return sum(file.data for file in self.files)

    def listing(self) -> bytes:
        """The list for qb-seal, with the content after its end line."""
        lines = [
            f"{METADATA}\tinline:{len(self.metadata)}\n",
            *(file.line(file.source) for file in self.files),
            "end\n",
        ]
        return os.fsencode("".join(lines)) + self.metadata


def volume_source(word: str, size: int, how: SourceOptions | None, front: str = "volume:") -> str:
    """The source of a volume for qb-volread. how: the options of the user; None: word is already a snapshot.

    front: what it begins with; see Indexing.
    """
    state = room = ""
    if how is not None:
        state, room = how.state or "", how.cow
    return f"{front}{size}:{state}:{room}:{word}"


class Given(NamedTuple):
    """The VOLUMEs of a command line. sources: the source and the size of each, by domain and name."""

    wanted: compose.Wanted
    sources: Mapping[tuple[str, str], tuple[str, NewVolume]]


class Taken(NamedTuple):
    """Snapshots of volumes at one point in time, in their order. own: those that the run itself releases."""

    specs: Sequence[str]
    own: Sequence[str]


def take(sources: Mapping[str, str], how: SourceOptions, still: AbstractContextManager[None] | None = None) -> Taken:
    """Takes a snapshot of each volume, for this run alone. sources: their words, by archive name. Errors and still as
    snapshots.take()."""
    specs = snapshots.take(list(sources.values()), Mark.own(), how, still)
    return Taken(specs, specs)


class Indexing(NamedTuple):
    """How a series saves volumes. numbers: of the domains. source: what comes in front of the source of a volume, by
    its archive name, its word, and how a host holds it. snapshots: what is read instead of a volume, by domain and
    name. take: the same as take() here, for a domain of a host. points: the checkpoint to make of a domain, and that of
    its last state, for Host.hold()."""

    numbers: Mapping[str, int]
    source: Callable[[str, str, Held | None], str]
    snapshots: Mapping[tuple[str, str], str] = {}
    take: Callable[[Mapping[str, str], SourceOptions, AbstractContextManager[None] | None], Taken] = take
    points: Callable[[str], tuple[str, str]] = lambda _domain: ("", "")


def archive_name(number: int, volume: str) -> str:
    """The archive name of a volume of the domain with this number."""
    return f"vm{number}/{volume}.img"


def of_words(words: Sequence[str], how: SourceOptions) -> Contents:
    """The contents for the VOLUMEs of a command line, all checked now. Errors as look()."""
    return contents(look(words, how), how)


def look(words: Sequence[str], how: SourceOptions) -> Given:
    """Checks the VOLUMEs of a command line.

    UsageError if a name is not allowed or given twice; errors of locate.sizes().
    """
    sources: dict[tuple[str, str], tuple[str, NewVolume]] = {}
    wanted: compose.Wanted = {}
    for word in words:
        domain, name, source = _parts(word)
        source = locate.explicit(source)
        size, data = locate.sizes(source, how)
        _check_names(word, domain, name)
        if (domain, name) in sources:
            raise UsageError(f"{domain}:{name} is given twice", _HINT)
        volume = NewVolume(name, size, data)
        sources[domain, name] = source, volume
        wanted.setdefault(domain, {})[name] = volume
        if name not in compose.RESTORED:
            how.warn(f"Qubes OS will not restore the volume {name} of {domain}, only {' and '.join(compose.RESTORED)}")
    return Given(wanted, sources)


def contents(given: Given, how: SourceOptions, indexing: Indexing | None = None) -> Contents:
    """The contents of an archive with these volumes.

    indexing: for an archive of a series. Its files are in an order that does not depend on the command line, because
    an increment must have the order of its base.
    """
    wanted = given.wanted
    if indexing is not None:
        ordered = sorted(wanted, key=lambda domain: indexing.numbers[domain])
        wanted = {domain: dict(sorted(wanted[domain].items())) for domain in ordered}
    document = compose.compose(wanted, indexing and indexing.numbers)
    files = []
    for entry in inventory.entries(Metadata(safexml.load(Reader(io.BytesIO(document), METADATA)))):
        key = entry.domain, entry.volume or ""
        word, volume = given.sources[key]
        front = "volume:"
        if indexing is not None:
            front, word = indexing.source(entry.archive_name, word, None), indexing.snapshots.get(key, word)
        source = volume_source(word, volume.size, how, front)
        files.append(Saved(entry.archive_name, source, volume.data, entry.label))
    return Contents(document, files)


def _parts(word: str) -> tuple[str, str, str]:
    """Domain, volume and source of a VOLUME."""
    match = None if os.path.lexists(word) else _WORD.fullmatch(word)
    if match:
        domain, name, source = match.groups()
    else:
        domain, name, source = re.split("[/:]", word)[-1].partition(".")[0], "root", word
    if "\n" in source:
        raise UsageError("a VOLUME has a newline in its name", "use a symbolic link with another name")
    return domain, name, source


def file_of(word: str) -> str | None:
    """The file from which a VOLUME is read, if it is a file."""
    return locate.file_path(_parts(word)[2])


def _check_names(word: str, domain: str, name: str) -> None:
    problem = names.new_domain_problem(domain)
    if problem:
        raise UsageError(f"cannot save {word} as the domain {domain}: {problem}", _HINT)
    problem = names.volume_problem(name)
    if problem:
        raise UsageError(f"cannot save a volume as {name}: {problem}", _HINT)


class Passages:
    """The times at which each file was begun and done."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.log: dict[str, Passage] = {}
        self.complete = False
        """Whether the archive was written to its end."""
        self._clock = clock

    def begun(self, name: str) -> None:
        """Called when the file is being read."""
        self.log[name] = Passage(self._clock())

    def failed(self, name: str, reason: str) -> None:
        """Called when it failed. The first reason counts."""
        before = self.log.get(name) or Passage(self._clock())
        self.log[name] = before._replace(ended=None, reason=before.reason or reason)

    def done(self, name: str, size: int | None = None) -> None:
        """Called when it was done without an error. size: its bytes, if known."""
        before = self.log.get(name) or Passage(self._clock())
        self.log[name] = before._replace(ended=self._clock(), size=size)


def save(
    wiring: Wiring,
    contents: Contents,
    source: Callable[[str], str],
    read: Callable[[str], None],
    passages: Passages,
    lost: Callable[[str, str], None] | None = None,
) -> None:
    """Runs the stages until the archive is complete. Errors as verdict.judge().

    source: returns the source of a LATE file. read: called for each file that was read. passages: records the times.
    lost: called with each file that fails, and the reason; the others continue (the stages need the same option).
    None: the first failure ends the run.
    """
    failed: set[str] = set()
    written = False

    def fail(name: str, reason: str) -> None:
        if lost is not None and name not in failed:
            reason = reason.removeprefix(f"{name}: ")
            failed.add(name)
            passages.failed(name, reason)
            lost(name, reason)

    files = {file.archive_name: file for file in contents.files}

    def happened(event: Happened) -> None:
        nonlocal written
        if event.event == "source":
            wiring.tell(_line(files[event.name], source, fail if lost else None))
        elif event.event == "begin":
            passages.begun(event.name)
        elif event.event == "read":
            passages.done(event.name)
            read(event.name)
        elif event.event == "failed":
            fail(event.name, event.reason)
            read(event.name)
        elif event.event == "complete":
            written = True

    with wiring:
        wiring.tell(contents.listing())
        statuses, failures = wiring.run(happened)
    if written and failed and statuses:  # the first stage ends with the status of the failed files
        statuses = (0, *statuses[1:])
        failures = [failure for failure in failures if failure.program != "qb-seal"]
    verdict.judge(statuses, failures)
    _check_all_read((file for file in contents.files if file.archive_name not in failed), passages)
    passages.complete = True


def _line(file: Saved, source: Callable[[str], str], fail: Callable[[str, str], None] | None) -> str:
    try:
        return file.line(source(file.archive_name))
    except QbError as error:
        if fail is None:
            raise
        fail(file.archive_name, error.message)
        return f"{file.archive_name}\t{_NONE}\n"


def _check_all_read(files: Iterable[Saved], passages: Passages) -> None:
    for file in files:
        if file.archive_name not in passages.log or passages.log[file.archive_name].ended is None:
            raise Failed(f"{file.archive_name} was not saved, although all stages succeeded")
