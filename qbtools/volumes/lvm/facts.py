"""What lvm knows of logical volumes: which there are, how large, of which kind, in what state."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from qbtools.errors import Failed, UsageError
from qbtools.volumes.lvm import dm, lvnames, tools
from qbtools.volumes.marks import Mark, is_temporary_name

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
    """Left out when lvm activates what there is."""
    active: bool

    @property
    def full(self) -> str:
        """GROUP/NAME, as lvm takes it."""
        return f"{self.group}/{self.name}"

    @property
    def path(self) -> str:
        """Where its device is while it is active."""
        return f"/dev/{self.group}/{self.name}"

    @property
    def thin(self) -> bool:
        """It lies in a thin pool (and is none)."""
        return "thin" in self.layout and "pool" not in self.layout

    @property
    def mark(self) -> Mark | None:
        """Whose it is, where it is one of our own making. What the user gave a name is not, whatever its tags."""
        if not is_temporary_name(self.name):
            return None
        return next(filter(None, map(Mark.parse, self.tags)), None)


def group(name: str) -> dict[str, Volume]:
    """The volumes of a group, by name, hidden parts left out. Failed if it is not there."""
    return {volume.name: volume for volume in _volumes(name)}


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


def volume(name: str) -> tuple[Volume, dict[str, Volume]]:
    """The volume that name (`GROUP/NAME`, or a path of its device) means, and all of its group.

    UsageError if name can mean none; Failed if it is not there.
    """
    parts = lvnames.split(name)
    if parts is None or len(parts) != 2:
        parts = find(name)
        if parts is None:
            raise UsageError(f"{name} is not a logical volume", "write lvm:VG/LV")
    volumes = group(parts[0])
    if parts[1] not in volumes:
        raise Failed(f"there is not a logical volume {parts[1]} in {parts[0]}")
    return volumes[parts[1]], volumes


@functools.cache
def find(word: str) -> tuple[str, str] | None:
    """Group and name of the volume that a word means, as lvm says; None if lvm knows none, or cannot say.

    word: `GROUP/NAME`, or a path: of a block device whose number tells that it is lvm's, or of one that is not there
    because the volume is not active. Whatever else lies at a path is not a logical volume.
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
