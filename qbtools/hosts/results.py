"""The result for each domain, from the planned files and the times at which each file was begun and done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from qbtools.errors import Failed, and_more
from qbtools.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from qbtools.hosts.restoring import Made
    from qbtools.hosts.saving import Failing, File


INCOMPLETE = "the archive is not complete"
"""The problem of a domain that was saved without an error, but whose archive is not complete."""

EARLY = "the run ended early"
"""The problem of a domain without an error when the run was ended."""


class Passage(NamedTuple):
    """The times at which a file was begun and done, in seconds; None if it was not. size: bytes, if known.

    reason: why it failed, if known.
    """

    begun: float
    ended: float | None = None
    size: int | None = None
    reason: str = ""


class Stored(NamedTuple):
    """An archive of one domain. size: its bytes."""

    archive: str
    backup_id: str
    size: int


class Result(NamedTuple):
    """The result for one domain. problem: None if there was none. state: the saved state, None for a restore.

    broken: the metadata of the archive promises it, but a part of it is missing. stored: its own archive, if any.
    """

    domain: str
    volumes: int = 0
    size: int = 0
    seconds: float = 0.0
    problem: str | None = None
    state: str | None = None
    broken: bool = False
    stored: Stored | None = None

    def as_document(self) -> dict[str, object]:
        """The result for JSON."""
        document: dict[str, object] = {
            "name": self.domain,
            "volumes": self.volumes,
            "bytes": self.size,
            "seconds": round(self.seconds, 3),
            "problem": self.problem,
        }
        if self.state is not None:
            document["state"] = self.state
            document["broken"] = self.broken
        if self.stored is not None:
            document["archive"] = self.stored.archive
            document["backup_id"] = self.stored.backup_id
            document["archive_bytes"] = self.stored.size
        return document


def of_restore(
    files: Iterable[Made], log: Mapping[str, Passage], sizes: Mapping[str, int | None], ended: bool, going: bool
) -> list[Result]:
    """The domains of a restore in their order.

    sizes: the bytes of each file in the metadata. ended: the run ended without an error. going: a domain with all its
    volumes is good even if the run failed; otherwise no domain is.
    """
    results = []
    for domain, own in _grouped(files).items():
        volumes = [file for file in own if file.volume is not None]
        passages = [log.get(file.archive_name) for file in volumes]
        problem = next(
            (text for file in volumes if (text := _problem(file, log, sizes.get(file.archive_name)))),
            None if ended or going else EARLY,
        )
        known = [passage for passage in passages if passage is not None]
        size = sum(passage.size or 0 for passage in known)
        results.append(Result(domain, len(volumes), size, _seconds(known), problem))
    return results


def of_home(domain: str, archive_name: str, log: Mapping[str, Passage], ended: bool) -> Result:
    """The same for the home of a domain, which has no volumes."""
    passage = log.get(archive_name)
    if passage is None:
        return Result(domain, problem=f"{archive_name} is missing in the archive" if ended else EARLY)
    problem = _failed(archive_name, passage) if passage.ended is None else None
    return Result(domain, seconds=_seconds([passage]), problem=problem)


def failed_files(files: Iterable[Made], log: Mapping[str, Passage]) -> list[str]:
    """The archive names of the failed files that are not volumes."""
    volumes = {file.archive_name for file in files if file.volume is not None}
    return [name for name, passage in log.items() if passage.ended is None and name not in volumes]


def _grouped(files: Iterable[Made]) -> dict[str, list[Made]]:
    found: dict[str, list[Made]] = {}
    for file in files:
        found.setdefault(file.domain, []).append(file)
    return found


def _problem(file: Made, log: Mapping[str, Passage], size: int | None) -> str | None:
    passage = log.get(file.archive_name)
    if passage is None:
        return f"{file.archive_name} is missing in the archive"
    if passage.ended is None:
        return _failed(file.archive_name, passage)
    if size is not None and passage.size is not None and passage.size > size:
        return f"{file.archive_name} has {passage.size} bytes, but qubes.xml says {size}"
    return None


def _failed(name: str, passage: Passage) -> str:
    return f"{name}: {passage.reason}" if passage.reason else f"{name} failed"


def _seconds(passages: Iterable[Passage]) -> float:
    return sum(passage.ended - passage.begun for passage in passages if passage.ended is not None)


def of_saving(
    files: Iterable[File], log: Mapping[str, Passage], ended: bool, causes: Mapping[str, str]
) -> list[Result]:
    """The domains that were saved, in their order. ended: the archive is complete. causes: why some failed."""
    results: dict[str, Result] = {}
    for file in files:
        before = results.get(file.domain) or Result(file.domain, state=file.state)
        passage = log.get(file.archive_name)
        problem = None
        if passage is None or passage.ended is None:
            was_not = f"{file.archive_name} was not saved"
            problem = was_not if passage is None else _failed(file.archive_name, passage)
            if file.domain in causes:
                problem = f"{problem}: {causes[file.domain]}"
        results[file.domain] = before._replace(
            volumes=before.volumes + (file.kind == "volume"),
            size=before.size + file.size,
            seconds=before.seconds + _seconds([passage] if passage else []),
            problem=before.problem or problem,
            broken=before.broken or (ended and problem is not None),
        )
    if ended:
        return list(results.values())
    return [one._replace(problem=one.problem or INCOMPLETE) for one in results.values()]


def of_failing(failing: Iterable[Failing]) -> list[Result]:
    """The domains that cannot be saved."""
    return [Result(one.name, problem=one.reason) for one in failing]


def complaint(found: Iterable[Result], of: int) -> Failed | None:
    """The failure of domains that cannot be saved, in one line; None if there is none. of: the number of domains."""
    failed = [result for result in found if result.problem is not None]
    if not failed:
        return None
    lost = [result for result in failed if result.stored is None]
    what = "domains cannot be saved" if lost else "domains have an archive, but no receipt"
    first = f"{failed[0].domain} ({failed[0].problem})"
    broken = ", ".join(result.domain for result in failed if result.broken)
    hint = f"only a part of it is in the archive, so Qubes OS would restore it broken: {broken}" if broken else None
    return Failed(f"{len(failed)} of {of} {what}: {first}{and_more(failed)}", hint)


def restore_complaint(found: Sequence[Result], others: Sequence[str]) -> Failed | None:
    """The failure of domains or files that were not restored, in one line; None if there is none."""
    failed = [result for result in found if result.problem is not None]
    if failed:
        return Failed(
            f"{len(failed)} of {len(found)} domains failed: {failed[0].domain} ({failed[0].problem}){and_more(failed)}"
        )
    if others:
        return Failed(f"{others[0]} was not restored{and_more(others)}")
    return None


def as_document(
    results: Iterable[Result],
    status: int,
    files: Sequence[str] = (),
    left_out: Sequence[Mapping[str, object]] = (),
) -> dict[str, object]:
    """All results for JSON. files: failed files that are not volumes. left_out: everything that is left out."""
    document: dict[str, object] = {"status": status, "domains": [result.as_document() for result in results]}
    if files:
        document["failed_files"] = list(files)
    document["left_out"] = list(left_out)
    return document
