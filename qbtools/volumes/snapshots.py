"""Snapshots that stay: of several volumes at one point in time; what is left of them, and of runs that have ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from types import TracebackType

from qbtools.errors import QbError
from qbtools.volumes import locate
from qbtools.volumes.kind import Kind, SourceOptions
from qbtools.volumes.marks import Mark


def take(
    words: Sequence[str],
    mark: Mark,
    options: SourceOptions,
    still: AbstractContextManager[None] | None = None,
) -> list[str]:
    """Takes a snapshot of each volume, marked; a spec for each, in order.

    still: entered when all that takes time is done, left when all are taken. All or none: when anything fails,
    leaving still included, those that were taken are removed.
    """
    calls = _prepared(words, mark, options)
    specs: dict[int, str] = {}
    try:
        with still or nullcontext():
            for places, call in calls:
                specs.update(zip(places, call(), strict=True))
    except BaseException:
        with suppress(QbError):
            release(list(specs.values()))
        raise
    return [specs[place] for place in range(len(words))]


def check(words: Sequence[str], mark: Mark, options: SourceOptions) -> None:
    """Raises what take() would raise now, before it takes anything."""
    _prepared(words, mark, options)


def _prepared(
    words: Sequence[str], mark: Mark, options: SourceOptions
) -> list[tuple[list[int], Callable[[], list[str]]]]:
    """For each kind: which of the words are its, and the call that takes their snapshots."""
    kinds: dict[str, Kind] = {}
    names: dict[str, dict[int, str]] = {}
    for place, word in enumerate(words):
        kind, name = locate.existing(word)
        kinds[kind.scheme] = kind
        names.setdefault(kind.scheme, {})[place] = name
    return [
        (list(named), kinds[scheme].prepare(list(named.values()), mark, options)) for scheme, named in names.items()
    ]


class Problems:
    """`with problems:` lets what is inside fail, keeps the first error for later, and goes on."""

    def __init__(self) -> None:
        self._first: QbError | None = None

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, QbError):
            self._first = self._first or error
            return True
        return False

    def end(self) -> None:
        """Raises the first error, if there was any."""
        if self._first is not None:
            raise self._first


def release(specs: Sequence[str]) -> None:
    """Removes all that can be; the first error is raised at the end."""
    problems = Problems()
    for spec in specs:
        with problems:
            kind, _ = locate.existing(spec)
            kind.release(spec)
    problems.end()


def marked(places: Sequence[str], problems: Problems) -> list[tuple[str, Mark]]:
    """Spec and mark of all of ours that there is: of files in these directories, of other kinds everywhere."""
    found: list[tuple[str, Mark]] = []
    for kind in locate.known().values():
        with problems:
            for pair in kind.marked(places):
                found.append(pair)
    return found


def clean(places: Sequence[str], note: Callable[[str], None]) -> None:
    """Removes what marked() finds and of which the owner is dead for certain; the first error is raised at the end."""
    problems = Problems()
    for spec, mark in marked(places, problems):
        if mark.dead():
            with problems:
                release([spec])
                note(f"removed {spec}")
    problems.end()
