"""Converts the options about volumes: how a volume is read, and how it is filled."""

from __future__ import annotations

import os

from qbtools import directories
from qbtools.commands.cli import Invocation
from qbtools.errors import QbError, UsageError, naming
from qbtools.lean import TYPE_CHECKING, NamedTuple, Pattern
from qbtools.volumes import locate
from qbtools.volumes.kind import SourceOptions, TargetOptions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from qbtools.formats.deltastream import Base
    from qbtools.formats.volumestream import ExtentMap
    from qbtools.volumes.kind import Source

_PERCENTAGE = Pattern(r"[0-9]{1,2}(\.[0-9]{1,3})?%?")
_RESERVE = "5"
"""The default, which is accepted without compiling a pattern."""

STATES = "snapshot", "current", "before-start"


def reading(call: Invocation) -> SourceOptions:
    """The values of --state, --cow and, if the program has it, --opaque. UsageError for invalid values."""
    state = call.options["--state"]
    if state not in (None, *STATES):
        raise UsageError(f"--state: must be one of {', '.join(STATES)}")
    return SourceOptions(state, _room(call), call.note, call.warn, bool(call.options.get("--opaque")))


def _room(call: Invocation) -> str:
    """The value of --cow in the form of SourceOptions: `NN%`, or bytes."""
    text = str(call.options["--cow"])
    if not text.endswith("%"):
        return str(call.size("--cow", 1))
    digits = text[:-1]
    if not digits.isascii() or not digits.isdecimal() or len(digits) > 3 or not 1 <= int(digits) <= 100:
        raise UsageError("--cow: must be between 1% and 100%, or a size")
    return text


class Since(NamedTuple):
    """What may have changed since a backup. base: for the header of the stream."""

    changed: ExtentMap
    base: Base


def changed(call: Invocation, source: Source, extents: ExtentMap) -> Since | None:
    """What --since and --base ask for; None if the whole volume is to be written, with the reason as a note.

    extents: the map of the source.
    """
    since, path = call.options["--since"], call.options["--base"]
    if since is None or path is None:
        if since is not None or path is not None:
            raise UsageError("--since and --base go together")
        return None
    from qbtools.commands.pipe import indexfiles

    try:
        head = indexfiles.head(path)
        found = locate.changed(call.options["VOLUME"], source, since, head.size, head.block)
    except QbError as error:
        call.note(f"{source.name}: everything is read: {error.message}")
        return None
    if call.verbose:  # a large map takes seconds to count
        from qbtools.volumes.reading import records

        read = sum(record.length for record in records(extents, found) if not record.zero)
        call.note(f"{source.name}: {read} bytes may have changed since {head.base.backup_id}, only these are read")
    return Since(found, head.base)


def filling(call: Invocation) -> TargetOptions:
    """The values of --create, --overwrite, --shrink and --pool-reserve. UsageError for invalid values."""
    text = str(call.options["--pool-reserve"])
    if text != _RESERVE and not _PERCENTAGE.fullmatch(text):
        raise UsageError("--pool-reserve: must be a percentage from 0 to 99.999")
    return TargetOptions(
        create=bool(call.options["--create"]),
        overwrite=bool(call.options["--overwrite"]),
        shrink=bool(call.options["--shrink"]),
        create_options=str(call.options.get("--create-option") or ""),
        pool_reserve=float(text.rstrip("%")),
        note=call.note,
        warn=call.warn,
    )


class Parents:
    """Creates the directories above files when a `with` begins. If the `with` fails, it removes the empty ones."""

    def __init__(self, words: Sequence[str]) -> None:
        """words: targets. Entering raises UsageError if one is not a file, Failed if a directory cannot be created."""
        self._words = words
        self._made: list[str] = []

    def __enter__(self) -> None:
        try:
            for word in self._words:
                self._make(word)
        except BaseException:
            directories.remove(self._made)
            raise

    def _make(self, word: str) -> None:
        path = locate.file_path(word)
        if path is None:
            raise UsageError(f"{word}: only a file has directories above it", "a path begins with / or ./")
        parent = os.path.dirname(path)
        with naming(f"create {parent}"):
            self._made += directories.make(parent)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is not None:
            directories.remove(self._made)
