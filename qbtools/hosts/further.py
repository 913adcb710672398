"""The further files of a domain in a directory: which are saved, and which are not and why."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator

from qbtools.domains import names
from qbtools.errors import Failed
from qbtools.formats.chunks import name_problem
from qbtools.hosts.unsaved import Unsaved
from qbtools.lean import NamedTuple
from qbtools.volumes.files import leftovers
from qbtools.volumes.marks import Mark

IMAGE = ".img"
"""The suffix of volumes that are files."""

MARK = f".{names.UNFINISHED}."
"""The prefix of a file that marks a directory; the mark follows."""

EMPTY = "empty"
"""The file of a domain without other files."""


class Further(NamedTuple):
    """saved: the name in the archive and the path of each saved file. unsaved: the others."""

    saved: list[tuple[str, str]]
    unsaved: list[Unsaved]


def files(domain: str, place: str, volumes: Collection[str]) -> Further:
    """The files in the directory place of a domain; empty if it does not exist.

    volumes: names of files that are volumes. They are ignored here, and so are files of qbtools.
    Failed if the directory cannot be read.
    """
    found = Further([], [])
    for entry in others(place, volumes):
        path = os.path.join(place, entry)
        archived = f"{names.HOME}{entry}" if domain == names.ADMIN else entry
        problem = _problem(domain, entry, path, archived)
        if problem is None:
            found.saved.append((archived, path))
        else:
            found.unsaved.append(Unsaved(domain, path, problem))
    return found


def others(place: str, known: Collection[str] = ()) -> Iterator[str]:
    """The names in a directory, in order, except known ones and files of qbtools. Failed as files()."""
    try:
        entries = sorted(os.listdir(place))
    except FileNotFoundError:
        return
    except OSError as error:
        raise Failed(f"cannot read {place}: {error.strerror}") from error
    for entry in entries:
        if entry not in known and not is_mark(entry) and leftovers.mark_of(entry) is None:
            yield entry


def is_mark(entry: str) -> bool:
    """Whether a file with that name marks its directory."""
    return entry.startswith(MARK) and Mark.parse(entry[len(MARK) :]) is not None


def _problem(domain: str, entry: str, path: str, archived: str) -> str | None:
    """Why a file or directory is not saved, None if it is."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if domain == names.ADMIN:
        if not stat.S_ISDIR(mode) or not names.is_home(archived) or entry.startswith("."):
            return f"only a directory with the name of a user is a home of {names.ADMIN}"
    elif entry.endswith(IMAGE):
        return "qubes.xml has no such volume"
    elif not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        return "neither a file nor a directory"
    elif entry == EMPTY:
        return "this name has another meaning in an archive"
    elif problem := name_problem(archived):
        return f"an archive cannot contain this name: {problem}"
    if not os.access(path, os.R_OK | (os.X_OK if stat.S_ISDIR(mode) else 0), effective_ids=True):
        return "cannot be read: Permission denied"
    return None
