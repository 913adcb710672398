"""Facts about logical volumes from lvm: which exist, their size, kind and state."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable

from qbtools.errors import Failed, UsageError
from qbtools.lean import TYPE_CHECKING, NamedTuple
from qbtools.volumes import marks
from qbtools.volumes.lvm import dm, lvnames, tools

if TYPE_CHECKING:
    from qbtools.volumes.marks import Owner

_FIELDS = (
    "vg_name,lv_name,lv_uuid,lv_size,lv_layout,lv_role,pool_lv,origin,lv_tags,lv_permissions,lv_skip_activation,"
    "lv_active"
)


class Volume(NamedTuple):
    """One logical volume, as lvm reports it (lvs(8), lvmreport(7))."""

    group: str
    name: str
    uuid: str
    size: int
    layout: frozenset[str]
    role: frozenset[str]
    pool: str
    origin: str
    tags: tuple[str, ...]
    read_only: bool
    skipped: bool
    """lvm skips it when it activates all volumes."""
    active: bool

    @property
    def full(self) -> str:
        """GROUP/NAME, as lvm accepts it."""
        return f"{self.group}/{self.name}"

    @property
    def path(self) -> str:
        """The path of its device while it is active."""
        return f"/dev/{self.group}/{self.name}"

    @property
    def thin(self) -> bool:
        """It is in a thin pool (and is not a pool)."""
        return "thin" in self.layout and "pool" not in self.layout

    @property
    def mark(self) -> Owner | None:
        """Its owner, if qbtools created it. A volume with a name that the user gave has none, whatever its tags."""
        if not marks.is_temporary_name(self.name):
            return None
        return next((mark for tag in self.tags if (mark := marks.parse(tag)) is not None), None)


def group(name: str) -> dict[str, Volume]:
    """The volumes of a group, by name, without hidden parts. Failed if the group does not exist."""
    return {volume.name: volume for volume in _volumes(name)}


class Part(NamedTuple):
    """A segment of a logical volume, or of a hidden part of one. ranges: where it is, only to be compared."""

    name: str
    uuid: str
    metadata: str
    """The name of the metadata of a pool."""
    ranges: str


def parts(name: str) -> tuple[dict[str, Volume], list[Part]]:
    """The volumes of a group, as group(), and the segments of all that is in it."""
    rows = tools.report("lvs", f"{_FIELDS},metadata_lv,seg_pe_ranges", "-a", name)
    found = {row.get("lv_name", ""): row for row in rows}
    segments = [
        Part(*(row.get(field, "").strip("[]") for field in ("lv_name", "lv_uuid", "metadata_lv", "seg_pe_ranges")))
        for row in rows
    ]
    return {name: _volume(row) for name, row in found.items() if not name.startswith("[")}, segments


def everywhere() -> list[Volume]:
    """The volumes of all groups."""
    return _volumes()


def _volumes(*arguments: str) -> list[Volume]:
    return [_volume(row) for row in tools.report("lvs", _FIELDS, *arguments)]


def _volume(row: dict[str, str]) -> Volume:
    try:
        return Volume(
            row["vg_name"],
            row["lv_name"],
            row["lv_uuid"],
            int(row["lv_size"]),
            frozenset(row["lv_layout"].split(",")),
            frozenset(row["lv_role"].split(",")),
            row["pool_lv"],
            row["origin"],
            tuple(row["lv_tags"].split(",")),
            row["lv_permissions"].startswith("read-only"),
            bool(row["lv_skip_activation"]),
            row["lv_active"].startswith("active"),
        )
    except (KeyError, ValueError) as error:
        raise Failed("lvs printed a report that cannot be parsed") from error


class Groups:
    """What lvm says of the volumes of groups. It is asked once for each group, so this is not for long."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Volume]] = {}

    def volume(self, name: str) -> tuple[Volume, dict[str, Volume]]:
        """The volume that name (`GROUP/NAME`, or a path of its device) means, and all of its group.

        UsageError if name cannot mean a volume; Failed if it does not exist.
        """
        parts = lvnames.split(name)
        if parts is None or len(parts) != 2:
            parts = find(name)
            if parts is None:
                raise UsageError(f"{name} is not a logical volume", "write lvm:VG/LV")
        if parts[0] not in self._known:
            self._known[parts[0]] = group(parts[0])
        volumes = self._known[parts[0]]
        if parts[1] not in volumes:
            raise Failed(f"there is no logical volume {parts[1]} in {parts[0]}")
        return volumes[parts[1]], volumes

    def forget(self) -> None:
        """lvm is asked again."""
        self._known.clear()


def volume(name: str) -> tuple[Volume, dict[str, Volume]]:
    """The same, asked now."""
    return Groups().volume(name)


@functools.cache
def find(word: str) -> tuple[str, str] | None:
    """Group and name of the volume that a word means, from lvm; None if lvm knows none, or fails.

    word: `GROUP/NAME`, or the path of a block device of lvm (known by its number), or of one that does not exist
    because the volume is not active. Anything else at a path is not a logical volume.
    """
    try:
        found = os.stat(word)
    except (OSError, ValueError):
        parts = lvnames.split(word)
        if word.startswith("/dev/") or (parts is not None and len(parts) == 2):
            return _ask(word, lambda _row: True)
        return None
    if not stat.S_ISBLK(found.st_mode):
        return None
    prefix, dash, uuid = dm.uuid(found.st_rdev).partition("-")
    if prefix != "LVM" or not dash:
        return None
    mapper = f"/dev/mapper/{dm.name(found.st_rdev)}"
    return _ask(mapper, lambda row: (row["vg_uuid"] + row["lv_uuid"]).replace("-", "") == uuid)


def _ask(word: str, fits: Callable[[dict[str, str]], bool]) -> tuple[str, str] | None:
    try:
        rows = tools.report("lvs", "vg_name,lv_name,vg_uuid,lv_uuid", word)
        return next(((row["vg_name"], row["lv_name"]) for row in rows if fits(row)), None)
    except (Failed, KeyError):
        return None
