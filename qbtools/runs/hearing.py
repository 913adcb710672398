"""Parses the stream of reports from the stages of a run.

It has lines of JSON. A line with `"size": N` is followed by N bytes and a newline. Lines `stages N N` are from bash:
the statuses of its pipeline. A line `failing N` is from a stage of several processes, of which one has failed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from qbtools.errors import Failed
from qbtools.lean import NamedTuple
from qbtools.reports import Failure, failure_of

MAX_EVENT = 1 << 16
"""The most bytes of a line."""

MAX_DATA = 1 << 26
"""The most bytes that may follow a line."""


class Happened(NamedTuple):
    """An event of a file.

    event: opened (the header of the archive is authenticated; no name), source (the stage needs its source now), begin,
    read (its source may be released), sealed, first (the archive begins with this file, which is not the metadata),
    done (its CMD succeeded; data: the output), failed, passed (it had no route), lost (it failed when it was saved),
    record (all of it was read; line: its line in the manifest), complete (the archive is written), ended (an archive
    was read to its end, and is complete; no name; digest: of its sealed manifest, empty if it has none).
    reason: why it failed, if known. base: the backup whose increments the archive holds, empty if it holds none.
    """

    event: str
    name: str
    data: bytes = b""
    version: int = 4
    backup_id: str = ""
    manifest: bool = True
    reason: str = ""
    base: str = ""
    line: str = ""
    digest: str = ""


class Stages(NamedTuple):
    """The statuses of the stages of the pipeline, in order: the last report of a run."""

    statuses: tuple[int, ...]


class Failing(NamedTuple):
    """A stage will end with this status, but a part of it still runs."""

    status: int


Said = Happened | Stages | Failing | Failure


class Hearing:
    """Parses bytes as they arrive."""

    def __init__(self) -> None:
        self._held = bytearray()

    def take(self, data: bytes) -> Iterator[Said]:
        """The complete reports so far. Failed for any unknown report, because then nothing can be trusted any more."""
        self._held += data
        while (said := self._next()) is not None:
            yield said

    def _next(self) -> Said | None:
        while self._held.startswith(b"progress ") and (end := self._held.find(b"\n")) >= 0:
            del self._held[: end + 1]  # another stage shows it
        end = self._held.find(b"\n")
        if end < 0 or end > MAX_EVENT:
            if len(self._held) > MAX_EVENT:
                raise _nonsense()
            return None
        line = bytes(self._held[:end])
        if line.startswith((b"stages ", b"failing ")):
            del self._held[: end + 1]
            return _statuses(line)
        fields = _fields(line)
        size = fields.get("size")
        content = b""
        if size is not None:
            if type(size) is not int or not 0 <= size <= MAX_DATA:
                raise _nonsense()
            if len(self._held) < end + 1 + size + 1:
                return None
            content = bytes(self._held[end + 1 : end + 1 + size])
            end += size + 1
        del self._held[: end + 1]
        failure = failure_of(fields)
        if failure is not None:
            return failure
        event, name = fields.get("event"), fields.get("name")
        if not isinstance(event, str) or not isinstance(name, str):
            raise _nonsense()
        version = fields.get("version", 4)
        backup_id = str(fields.get("backup_id") or "")
        manifest = fields.get("manifest") is not False
        reason, base = str(fields.get("reason", "")), str(fields.get("base") or "")
        version = version if isinstance(version, int) else 4
        record, digest = str(fields.get("line", "")), str(fields.get("digest") or "")
        return Happened(event, name, content, version, backup_id, manifest, reason, base, record, digest)


def _fields(line: bytes) -> dict[str, object]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise _nonsense() from None
    if not isinstance(fields, dict):
        raise _nonsense()
    return fields


def _statuses(line: bytes) -> Stages | Failing:
    kind, *words = line.split()
    if not words or not all(word.isdigit() and len(word) < 4 for word in words):
        raise _nonsense()
    statuses = tuple(int(word) for word in words)
    return Stages(statuses) if kind == b"stages" else Failing(statuses[0])


def _nonsense() -> Failed:
    return Failed("a stage sent a malformed report")
