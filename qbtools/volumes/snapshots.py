"""Lasting snapshots of several volumes at one point in time; finds and removes leftovers of runs that have ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress

from qbtools.errors import QbError
from qbtools.lean import TYPE_CHECKING
from qbtools.volumes import locate
from qbtools.volumes.kind import Kind, SourceOptions
from qbtools.volumes.marks import Kept
from qbtools.volumes.problems import Problems

if TYPE_CHECKING:
    from qbtools.volumes.marks import Owner


def take(
    words: Sequence[str],
    mark: Owner,
    options: SourceOptions,
    still: AbstractContextManager[None] | None = None,
    others: Mapping[str, Owner] = {},
) -> list[str]:
    """Takes a snapshot of each volume, with a mark. Returns a spec for each, in order.

    still: a context manager around the moment of the snapshots; everything slow is done before it. If anything fails,
    even leaving still, all snapshots are removed. others: the words that get another mark.
    """
    calls = _prepared(words, mark, options, others)
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


def check(words: Sequence[str], mark: Owner, options: SourceOptions) -> None:
    """Raises the errors of take() that come before the first snapshot."""
    _prepared(words, mark, options)


def _prepared(
    words: Sequence[str], mark: Owner, options: SourceOptions, others: Mapping[str, Owner] = {}
) -> list[tuple[list[int], Callable[[], list[str]]]]:
    """For each kind and mark: the indexes of its words, and the call that takes their snapshots."""
    kinds: dict[str, Kind] = {}
    names: dict[tuple[str, Owner], dict[int, str]] = {}
    for place, word in enumerate(words):
        kind, name = locate.existing(word)
        kinds[kind.scheme] = kind
        names.setdefault((kind.scheme, others.get(word, mark)), {})[place] = name
    return [
        (list(named), kinds[scheme].prepare(list(named.values()), owner, options))
        for (scheme, owner), named in names.items()
    ]


def release(specs: Sequence[str]) -> None:
    """Removes as many as possible. Raises the first error at the end."""
    found: dict[Kind, list[str]] = {}
    problems = Problems()
    for spec in specs:
        with problems:
            kind, _ = locate.existing(spec)
            found.setdefault(kind, []).append(spec)
    for kind, named in found.items():
        with problems:
            kind.release_all(named)
    problems.end()


def _by_kind(words: Iterable[str]) -> tuple[dict[Kind, dict[str, str]], dict[str, QbError]]:
    """The words of existing volumes by the names of the volumes, for each kind; and why others have none."""
    found: dict[Kind, dict[str, str]] = {}
    errors: dict[str, QbError] = {}
    for word in words:
        try:
            kind, name = locate.existing(word)
            found.setdefault(kind, {})[name] = word
        except QbError as error:
            errors[word] = error
    return found, errors


def keepable(words: Iterable[str], options: SourceOptions) -> set[str]:
    """Those of the volumes of which a snapshot can be kept for days; more in Kind.keepable()."""
    named, _errors = _by_kind(words)
    return {names[name] for kind, names in named.items() for name in kind.keepable(list(names), options)}


def lasting(word: str) -> str:
    """A word for an existing volume that means the same later, wherever a program runs: for release_kept()."""
    word = locate.explicit(word)
    path = locate.file_path(word)
    return word if path is None else f"{word.partition(':')[0]}:{os.path.realpath(path)}"


def stamps(specs: Iterable[str]) -> dict[str, str | QbError]:
    """For each result of take() a word that changes when somebody changes it, or why there is none."""
    named, errors = _by_kind(specs)
    found: dict[str, str | QbError] = {**errors}
    for kind, names in named.items():
        found |= {names[name]: stamp for name, stamp in kind.stamps(list(names)).items()}
    return found


def release_kept(words: Sequence[str], mark: Kept) -> None:
    """Removes every snapshot of these volumes that has this mark. Errors as release().

    words: results of lasting() or take(); the volumes need not exist any more.
    """
    kinds: dict[str, Kind] = {}
    places: set[str] = set()
    for word in words:
        kind, _ = locate.existing(word)
        kinds[kind.scheme] = kind
        if (path := locate.file_path(word)) is not None:
            places.add(os.path.dirname(os.path.realpath(path)))
    problems = Problems()
    for kind in kinds.values():
        with problems:
            release([spec for spec, found in kind.marked(sorted(filter(os.path.isdir, places))) if found == mark])
    problems.end()


def marked(places: Sequence[str], problems: Problems) -> list[tuple[str, Owner]]:
    """Spec and mark of everything with a mark of ours: files in these directories, other kinds everywhere."""
    found: list[tuple[str, Owner]] = []
    for kind in locate.known().values():
        with problems:
            for pair in kind.marked(places):
                found.append(pair)
    return found


def clean(places: Sequence[str], note: Callable[[str], None]) -> None:
    """Removes results of marked() whose owner is certainly dead. Raises the first error at the end."""
    problems = Problems()
    for spec, mark in marked(places, problems):
        if mark.dead():
            with problems:
                release([spec])
                note(f"removed {spec}")
    problems.end()
