"""Compares the files that were found in an archive with its qubes.xml (see qb-format(5)).

For archives without a manifest, such as those of Qubes OS, only this detects that a whole file is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from qbtools.domains.inventory import NONE, Entry
from qbtools.domains.lines import read_fields
from qbtools.domains.names import HOME, directory_of, number
from qbtools.errors import Damaged, Truncated, and_more
from qbtools.formats.chunks import METADATA, name_problem
from qbtools.streams import Reader

_IMAGE = ".img"
_CAME = "came"
_END = "end"


class Arrivals:
    """Collects the names of the files that were found, in any order. finish() reports what is missing."""

    def __init__(self, entries: Iterable[Entry], warn: Callable[[str], None]) -> None:
        """entries: the required files. Damaged if two of them have the same name, or two domains the same path.

        The volumes of a domain that was saved as one archive all have the name of this archive.
        """
        self._warn = warn
        self._expected: dict[str, Entry] = {}
        self._owners: dict[str, str] = {}  # path to domain
        for entry in entries:
            before = self._expected.get(entry.archive_name)
            if before and (not entry.archive_name.endswith("/.") or before.volume == entry.volume):
                raise Damaged(f"{entry.archive_name} is listed twice")
            if self._owners.setdefault(entry.path, entry.domain) != entry.domain:
                raise Damaged(f"{self._owners[entry.path]} and {entry.domain} have the same path: {entry.path}")
            self._expected[entry.archive_name] = entry
        self.anything = False
        """Files without a domain are accepted while neither a required volume nor the metadata itself is known."""
        self._came: set[str] = set()
        self._paths: set[str] = set()  # of the files that were found

    def add(self, untrusted_name: str, size: int | None) -> None:
        """Adds a file that was found. size: bytes of the volume in it, None if not known.

        Damaged if the name is malformed, occurs twice, or is not below the path of a saved domain, and if a volume is
        larger than qubes.xml says.
        """
        if problem := name_problem(untrusted_name, final_dot=True):
            raise Damaged(f"{untrusted_name}: {problem}")
        name = untrusted_name
        if name in self._came:
            raise Damaged(f"{name} occurs twice in the archive")
        self._came.add(name)
        if name == METADATA:
            return
        path = directory_of(name)
        rest = name[len(path) :]
        self._paths.add(path)
        entry = self._expected.get(name)
        if entry is None:
            self._further(name, path, rest)
        elif size is not None and entry.size is not None and size > entry.size:
            raise Damaged(f"{name} is a volume of {size} bytes, but qubes.xml says {entry.size}")

    def has(self, name: str) -> bool:
        """Whether a file with this name was found."""
        return name in self._came

    def _further(self, name: str, path: str, rest: str) -> None:
        """Adds a file that is not a saved volume. rest: its name below the domain's path."""
        if self.anything and not self._owners and METADATA not in self._came:
            return  # an archive without metadata, made by one pipe: there is nothing to compare
        if path != HOME and path not in self._owners:
            raise Damaged(f"{name} belongs to no saved domain")
        # Further files are in no qubes.xml; an image that is not in it is a mistake.
        if path == HOME or "/" in rest or rest.endswith(_IMAGE):
            self._warn(f"qubes.xml does not mention {name}")

    def finish(self) -> None:
        """Called at the end. Damaged if a volume is missing, or a domain with all its files."""
        missing = [entry for entry in self._expected.values() if not self._is_there(entry)]
        if missing:
            first = missing[0]
            raise Damaged(f"{first.archive_name} of {first.domain} is not in the archive{and_more(missing)}")

    def _is_there(self, entry: Entry) -> bool:
        # `empty` only represents the domain: any other file of it will do.
        return entry.archive_name in self._came or (entry.volume is None and entry.path in self._paths)


def check(reader: Reader, warn: Callable[[str], None], known: list[Entry] | None = None) -> int:
    """Reads the required files, then the files that were found, and compares them. Returns the number of found files.

    The lines, up to EOF: those of Entry.to_line, unless known has the required files; then for each found file `came`,
    its name and its real size (`-` if not known), separated by tabs; last `end`. Truncated if `end` is missing.
    Damaged for any other line, and if the comparison fails. If there are neither lines of the list nor the metadata,
    there is nothing to compare: the archive has one file, made by one pipe.
    """
    entries = list(known or ())
    arrivals = Arrivals(entries, warn) if known is not None else None
    count = 0
    ended = False
    for at, fields in read_fields(reader):
        if ended:
            raise Damaged(f"line {at} follows the end")
        if len(fields) == 5 and arrivals is None:
            entries.append(_entry(at, fields))
            continue
        if arrivals is None:
            arrivals = Arrivals(entries, warn)
            arrivals.anything = True
        if fields == [_END]:
            ended = True
        elif len(fields) == 3 and fields[0] == _CAME:
            arrivals.add(fields[1], _size(at, fields[2]))
            count += 1
        else:
            raise Damaged(f"line {at} is neither a line of the list nor of a found file, or is in the wrong place")
    if not ended or arrivals is None:
        raise Truncated(f"{reader.name} ends without its end line")
    arrivals.finish()
    return count


def _entry(at: int, fields: list[str]) -> Entry:
    try:
        return Entry.from_fields(fields)
    except Damaged as error:
        raise Damaged(f"line {at}: {error.message}") from error


def _size(at: int, text: str) -> int | None:
    size = number(text)
    if size is None and text != NONE:
        raise Damaged(f"line {at}: not a size in bytes: {text}")
    return size
