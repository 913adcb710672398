"""The targets of a restore. All are known and checked before the first byte is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from qbtools.domains import names, selection
from qbtools.domains.inventory import Entry
from qbtools.domains.qubesxml import Domain, Metadata
from qbtools.errors import QbError, Refused
from qbtools.lean import NamedTuple
from qbtools.volumes import locate, spots
from qbtools.volumes.kind import Room, SourceOptions, TargetOptions
from qbtools.volumes.spots import Apart

_SEALED = 1 << 20  # the size of a domain in an archive may be too large by so many bytes for each volume


class Wanted(NamedTuple):
    """A volume to restore. target: a word for qb-volwrite."""

    entry: Entry
    target: str

    @property
    def key(self) -> str:
        """DOMAIN:VOLUME."""
        return f"{self.entry.domain}:{self.entry.volume}"


class How(NamedTuple):
    """How targets are filled. options: for the stages that fill them. parents: missing directories are created.

    skip: a complete target is not touched. kept: the files that must not be a target, by description.
    """

    options: TargetOptions
    parents: bool = False
    skip: bool = False
    kept: Mapping[str, str] = {}


def check(wanted: Sequence[Wanted], how: How, warn: Callable[[str], None]) -> tuple[list[Wanted], dict[str, Room]]:
    """The volumes that must still be filled, and the room of their targets by key. Changes nothing.

    Errors of opening a target. Refused if two targets are the same, or one is too small or is one of kept.
    """
    left: list[Wanted] = []
    rooms: dict[str, Room] = {}
    apart = Apart()
    for words, path in how.kept.items():
        apart.add(spots.of_file(path), words)
    for one in wanted:
        if (other := apart.add(locate.spot(one.target), one.key)) is not None:
            both = f"{one.key} cannot be written over {other}"
            if other not in how.kept:
                both = f"{other} and {one.key} have the same target"
            raise Refused(f"{both}: {one.target}")
    for one in wanted:
        if how.skip and locate.complete(one.target):
            _compare_sizes(one, warn)
            continue
        left.append(one)
        room = locate.look(one.target, one.entry.size, how.options, how.parents)
        if room is not None:
            rooms[one.key] = room
    return left, rooms


def _compare_sizes(one: Wanted, warn: Callable[[str], None]) -> None:
    if locate.file_path(one.target) is None:  # others may be rounded up
        return
    try:
        size, _data = locate.sizes(one.target, SourceOptions(state="current", opaque=True))
    except QbError as error:
        warn(f"{one.target} is skipped, but {error.message}")
    else:
        if one.entry.size not in (None, size):
            warn(f"{one.target} is skipped, but it has {size} bytes and {one.key} has {one.entry.size}")


def check_room(
    metadata: Metadata,
    wanted: Sequence[Wanted],
    rooms: Mapping[str, Room],
    archive: int | None,
    warn: Callable[[str], None],
) -> None:
    """Refused if the sizes in the archive prove that the data cannot fit. A warning if the volumes may not fit.

    archive: bytes of the archive, None if not known. The sizes alone are not enough: a volume may have been saved as
    data from end to end although some of it is zeros, which need no room.
    """
    places: dict[tuple[object, ...], list[Wanted]] = {}
    for one in wanted:
        if one.key in rooms:
            places.setdefault(rooms[one.key].where, []).append(one)
    for ones in places.values():
        here = [rooms[one.key] for one in ones]
        free = min(room.free for room in here) + sum(room.freed for room in here)
        whole = sum(-(-(one.entry.size or 0) // rooms[one.key].unit) * rooms[one.key].unit for one in ones)
        data = whole if here[0].whole else _least_data(metadata, ones)
        if whole <= free:
            continue
        more = f" and {len(ones) - 1} more" if len(ones) > 1 else ""
        text = f"{ones[0].target}{more}: {free} bytes are free"
        proven = here[0].whole or data * 10 < whole * 9 or (archive is not None and archive > free)
        if data > free and proven and not here[0].packed:
            raise Refused(f"not enough room for {text}, the data has at least {data} bytes")
        warn(f"there may not be enough room for {text}, the volumes can grow to {whole} bytes")


def _least_data(metadata: Metadata, ones: Iterable[Wanted]) -> int:
    """The least bytes of data that volumes can have, from the sizes of their domains in the archive."""
    here: dict[str, set[str | None]] = {}
    for one in ones:
        here.setdefault(one.entry.domain, set()).add(one.entry.volume)
    return sum(_least_of(metadata.by_name[name], volumes) for name, volumes in here.items())


def _least_of(domain: Domain, volumes: set[str | None]) -> int:
    """The same for some volumes of a domain; the others may be data from end to end."""
    sealed = names.number(domain.features.get("backup-size", "")) or 0
    saved = selection.saved_volumes(domain)
    others = [volume.size for volume in saved if volume.name not in volumes]
    if None in others:
        return 0
    # A map and a header are less than a tenth of the data.
    return max((sealed - _SEALED * len(saved)) * 9 // 10 - sum(size or 0 for size in others), 0)
