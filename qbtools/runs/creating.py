"""A run that saves: which files stand in the archive, what each is read from, and how it went."""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from qbtools.domains import compose, inventory, names, safexml
from qbtools.domains.compose import NewVolume
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Failed, QbError, UsageError
from qbtools.formats.chunks import METADATA
from qbtools.hosts.results import Passage
from qbtools.runs import verdict
from qbtools.runs.hearing import Happened
from qbtools.runs.wiring import Wiring
from qbtools.streams import Reader
from qbtools.volumes import locate
from qbtools.volumes.kind import SourceOptions

_WORD = re.compile(r"([^:=/]+):([^:=/]+)=(.*)", re.DOTALL)
_HINT = "write DOMAIN:VOLUME=SOURCE"

LATE = "?"
"""The source of a file of which the stages ask when its turn comes."""

_NONE = "!"  # the answer if there is none


class Saved(NamedTuple):
    """A file of the archive. source: as bin/qb-backup takes it, `KIND:REST`, or LATE. data: bytes to be read.

    label: what progress calls it.
    """

    archive_name: str
    source: str
    data: int = 0
    label: str = ""

    def line(self, source: str) -> str:
        """Its line of the list, with its source as known now."""
        labelled = f"as:{self.label}={source}" if self.label and source.startswith("volume:") else source
        return f"{self.archive_name}\t{labelled}\n"


class Contents(NamedTuple):
    """What an archive will hold: the metadata, and the files in order."""

    metadata: bytes
    files: Sequence[Saved]

    @property
    def total(self) -> int:
        """Bytes that will be read."""
        return sum(file.data for file in self.files)

    def listing(self) -> bytes:
        """The list for qb-seal, with what follows its end."""
        lines = [
            f"{METADATA}\tinline:{len(self.metadata)}\n",
            *(file.line(file.source) for file in self.files),
            "end\n",
        ]
        return os.fsencode("".join(lines)) + self.metadata


def volume_source(word: str, size: int, how: SourceOptions | None) -> str:
    """The source of a volume that is read by qb-volread. how: as the user wants it, None: a snapshot, as it is."""
    state = room = ""
    if how is not None:
        state, room = how.state or "", how.cow
    return f"volume:{size}:{state}:{room}:{word}"


def of_words(words: Sequence[str], how: SourceOptions) -> Contents:
    """The archive of the VOLUMEs of a command line, each looked at now.

    UsageError for one that cannot be called so, or is given twice; what locate.sizes raises.
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
    document = compose.compose(wanted)
    files = []
    for entry in inventory.entries(Metadata(safexml.load(Reader(io.BytesIO(document), METADATA)))):
        source, volume = sources[entry.domain, entry.volume or ""]
        files.append(Saved(entry.archive_name, volume_source(source, volume.size, how), volume.data, entry.label))
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
    """The file that a VOLUME is read from, where it is one."""
    return locate.file_path(_parts(word)[2])


def _check_names(word: str, domain: str, name: str) -> None:
    problem = names.new_domain_problem(domain)
    if problem:
        raise UsageError(f"cannot save {word} as the domain {domain}: {problem}", _HINT)
    problem = names.volume_problem(name)
    if problem:
        raise UsageError(f"cannot save a volume as {name}: {problem}", _HINT)


class Passages:
    """When each file was begun and done."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.log: dict[str, Passage] = {}
        self.complete = False
        """Whether all of them were done, and so was what became of them."""
        self._clock = clock

    def begun(self, name: str) -> None:
        """The file is read now."""
        self.log[name] = Passage(self._clock())

    def failed(self, name: str, reason: str) -> None:
        """It failed. The first reason counts."""
        before = self.log.get(name) or Passage(self._clock())
        self.log[name] = before._replace(ended=None, reason=before.reason or reason)

    def done(self, name: str, size: int | None = None) -> None:
        """It ended well. size: bytes of it, where they are known."""
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
    """Runs the stages until the archive is complete; raises as verdict.judge.

    source: gives the source of a file that is LATE; read: told of each that was read; passages: keeps the times.
    lost: told of each file that fails, and why, where the others go on without it (the stages must know that too).
    None: the first one ends the run.
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
    if written and failed and statuses:  # the first stage ends with the failure of the files
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
            raise Failed(f"{file.archive_name} was not saved, although all stages ended well")
