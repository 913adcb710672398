"""How it went: from what was to be done, a line a file, and the log that the run has kept of its files.

The log has lines of tab-separated fields: `begin`, archive name, time in seconds; and, only for a file with which all
went well, `end`, archive name, time, bytes of the volume (`-`: not known).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from qbtools.domains import names
from qbtools.domains.inventory import NONE
from qbtools.domains.lines import read_fields
from qbtools.errors import Damaged
from qbtools.streams import Reader


class Passage(NamedTuple):
    """What the log says of one file. ended: None where it was not done."""

    begun: float
    ended: float | None = None
    size: int | None = None


class Restored(NamedTuple):
    """A file that was to come, as a host's `create` told of it: volume None for one that is none."""

    archive_name: str
    domain: str
    volume: str | None


class Result(NamedTuple):
    """How it went with one domain. problem: None where all is well. state: which was saved, None for a restore."""

    domain: str
    volumes: int
    size: int
    seconds: float
    problem: str | None
    state: str | None = None

    def as_document(self) -> dict[str, object]:
        """For programs that read JSON."""
        document: dict[str, object] = {
            "name": self.domain,
            "volumes": self.volumes,
            "bytes": self.size,
            "seconds": round(self.seconds, 3),
            "problem": self.problem,
        }
        if self.state is not None:
            document["state"] = self.state
        return document


def read_log(reader: Reader) -> dict[str, Passage]:
    """By archive name what the log says. Damaged for a malformed line."""
    found: dict[str, Passage] = {}
    for number, fields in read_fields(reader):
        time = fields[2] if len(fields) > 2 else ""
        if fields[0] not in ("begin", "end") or not re.fullmatch(r"[0-9]{1,12}\.[0-9]{6}", time):
            raise Damaged(f"line {number} of the log is malformed")
        name = fields[1]
        if fields[0] == "begin":
            found[name] = Passage(float(time))
        elif name in found and len(fields) == 4:
            found[name] = found[name]._replace(ended=float(time), size=names.number(fields[3]))
        else:
            raise Damaged(f"line {number} of the log is malformed")
    return found


def read_restored(reader: Reader) -> list[Restored]:
    """The lines of archive name, domain, volume and target. Damaged for a malformed one."""
    found = []
    for number, fields in read_fields(reader):
        if len(fields) != 4:
            raise Damaged(f"line {number} is not a file, its domain, volume and target")
        name, domain, volume, _target = fields
        found.append(Restored(name, domain, None if volume == NONE else volume))
    return found


def of_restore(
    files: Iterable[Restored], log: Mapping[str, Passage], sizes: Mapping[str, int | None], ended: bool, going: bool
) -> list[Result]:
    """The domains of a restore in their order.

    sizes: bytes that the metadata gives each file. ended: the run came to a good end. going: a domain that has all its
    volumes is well even if it did not; else none is.
    """
    results = []
    for domain, own in _grouped(files).items():
        volumes = [file for file in own if file.volume is not None]
        passages = [log.get(file.archive_name) for file in volumes]
        problem = next(
            (text for file in volumes if (text := _problem(file, log, sizes.get(file.archive_name)))),
            None if ended or going else "the run ended early",
        )
        known = [passage for passage in passages if passage is not None]
        size = sum(passage.size or 0 for passage in known)
        results.append(Result(domain, len(volumes), size, _seconds(known), problem))
    return results


def failed_files(files: Iterable[Restored], log: Mapping[str, Passage]) -> list[str]:
    """The archive names of those that belong to no volume, and with which it did not go well."""
    volumes = {file.archive_name for file in files if file.volume is not None}
    return [name for name, passage in log.items() if passage.ended is None and name not in volumes]


def _grouped(files: Iterable[Restored]) -> dict[str, list[Restored]]:
    found: dict[str, list[Restored]] = {}
    for file in files:
        found.setdefault(file.domain, []).append(file)
    return found


def _problem(file: Restored, log: Mapping[str, Passage], size: int | None) -> str | None:
    passage = log.get(file.archive_name)
    if passage is None:
        return f"{file.archive_name} did not come"
    if passage.ended is None:
        return f"{file.archive_name} failed"
    if size is not None and passage.size is not None and passage.size > size:
        return f"{file.archive_name} has {passage.size} bytes, but qubes.xml says {size}"
    return None


def _seconds(passages: Iterable[Passage]) -> float:
    return sum(passage.ended - passage.begun for passage in passages if passage.ended is not None)


def of_saving(lines: Reader, log: Mapping[str, Passage], ended: bool) -> list[Result]:
    """The domains that were saved, from the lines of saving.File. ended: the archive is complete."""
    results: dict[str, Result] = {}
    for number, fields in read_fields(lines):
        if len(fields) != 10 or names.number(fields[2]) is None:
            raise Damaged(f"line {number} is not a file that is saved")
        name, kind, size, _data, domain, state = fields[:6]
        if kind == "metadata":
            continue
        before = results.get(domain) or Result(domain, 0, 0, 0.0, None, state)
        passage = log.get(name)
        problem = None
        if passage is None or passage.ended is None:
            problem = f"{name} {'was not saved' if passage is None else 'failed'}"
        results[domain] = Result(
            domain,
            before.volumes + (kind == "volume"),
            before.size + int(size),
            before.seconds + _seconds([passage] if passage else []),
            before.problem or problem,
            state,
        )
    if ended:
        return list(results.values())
    return [one._replace(problem=one.problem or "the archive is not complete") for one in results.values()]


def to_lines(results: Iterable[Result]) -> Iterator[str]:
    """What `qb-host settle` takes: domain and `ok` or `failed`, separated by a tab."""
    return (f"{result.domain}\t{'failed' if result.problem else 'ok'}\n" for result in results)


def as_document(results: Iterable[Result], status: int, files: Sequence[str] = ()) -> dict[str, object]:
    """All of it for programs that read JSON. files: those that failed and are no volumes."""
    document: dict[str, object] = {"status": status, "domains": [result.as_document() for result in results]}
    if files:
        document["failed_files"] = list(files)
    return document
