"""Names of volume groups and logical volumes: checks which names lvm accepts, before anything is created.

The rules are those of lvm(8), VALID NAMES, and of its program, which refuses to create reserved names. A device of the
device mapper is called GROUP-VOLUME with each hyphen of either doubled, in at most 127 bytes (linux/dm-ioctl.h,
DM_NAME_LEN).
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[A-Za-z0-9+_.][A-Za-z0-9+_.-]*")
_LONGEST = 127
_ROOM_FOR_SLASH = 3  # lvm counts GROUP/VOLUME, its NUL byte and one more

RESERVED_BEGINNINGS = ("pvmove", "snapshot")
RESERVED_PARTS = (
    "_cdata",
    "_cmeta",
    "_corig",
    "_cpool",
    "_cvol",
    "_imeta",
    "_iorig",
    "_mimage",
    "_mlog",
    "_pmspare",
    "_rimage",
    "_rmeta",
    "_tdata",
    "_tmeta",
    "_vdata",
    "_vorigin",
    "_wcorig",
)


def volume_problem(group: str, volume: str) -> str | None:
    """What is wrong with the name of a new volume in a group with a valid name; None if nothing is."""
    problem = _word_problem(volume)
    if problem:
        return problem
    for text in RESERVED_BEGINNINGS:
        if volume.startswith(text):
            return f"names that begin with {text} are reserved for lvm"
    for text in RESERVED_PARTS:
        if text in volume:
            return f"names with {text} in them are reserved for lvm"
    if len(group) + len(volume) + _ROOM_FOR_SLASH > _LONGEST or len(mapper_name(group, volume)) > _LONGEST:
        return f"it is too long for a volume in {group} (hyphens count twice)"
    return None


def mapper_name(group: str, volume: str, layer: str = "") -> str:
    """The name of a volume, or of a layer of it (`tpool`, `real`), in the device mapper."""
    parts = [group.replace("-", "--"), volume.replace("-", "--")]
    return "-".join([*parts, layer] if layer else parts)


def split(name: str) -> tuple[str, ...] | None:
    """The parts of `GROUP/VOLUME` or `GROUP/POOL/VOLUME`; None if name has neither form."""
    parts = tuple(name.split("/"))
    return parts if len(parts) in (2, 3) and all(map(_WORD.fullmatch, parts)) else None


def _word_problem(word: str) -> str | None:
    if not word:
        return "it is empty"
    if word in (".", ".."):
        return "it is the name of a directory"
    if word.startswith("-"):
        return "it begins with a hyphen"
    if not _WORD.fullmatch(word):
        return "it has characters other than letters of ASCII, digits and + _ . -"
    if len(word) > _LONGEST:
        return "it is too long"
    return None
