"""The places of volumes. They tell whether two names mean the same volume, before anything is written."""

from __future__ import annotations

import errno
import os
import stat

from qbtools import directories
from qbtools.errors import Failed
from qbtools.lean import TYPE_CHECKING, NamedTuple, suppress
from qbtools.volumes import kernel

if TYPE_CHECKING:
    Key = tuple[object, ...]


_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.+-")

# Windows has devices of these names, and ntfs can refuse them.
_RESERVED = frozenset(
    ("con", "prn", "aux", "nul", *(f"{word}{digit}" for word in ("com", "lpt") for digit in "123456789"))
)

# The errors for a name that a file system cannot store.
_BAD_NAMES = (errno.EINVAL, errno.EILSEQ, errno.EOVERFLOW, errno.ENAMETOOLONG)


class Spot(NamedTuple):
    """The place of one volume.

    keys: two spots that share a key are the same volume. within: keys of the things that contain it: the missing
    directories above a file, the disk of a partition. above: the existing directory above a file; below: the names
    below that directory.
    """

    keys: frozenset[Key]
    within: frozenset[Key] = frozenset()
    above: str = ""
    below: tuple[str, ...] = ()


def of_file(path: str) -> Spot:
    """The spot of a file, existing or not. Symbolic links are followed, and hard links are detected."""
    real = os.path.realpath(path)
    above, base = os.path.split(real)
    below: tuple[str, ...] = (base,)
    while not os.path.isdir(above) and above != os.path.dirname(above):
        above, base = os.path.split(above)
        below = (base, *below)
    anchor = _anchor(above)
    own: Key = (*anchor, below)
    keys = {own}
    with suppress(OSError):
        found = os.stat(real)
        if stat.S_ISREG(found.st_mode):
            keys.add(("inode", found.st_dev, found.st_ino))
    within: set[Key] = {(*anchor, below[:count]) for count in range(1, len(below))}
    return Spot(frozenset(keys), frozenset(within), above, below)


def of_device(number: int) -> Spot:
    """The spot of a block device, by its number. A device of the device mapper has its name as a key too."""
    place = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
    keys: set[Key] = {("device", number)}
    if mapped := kernel.text(f"{place}/dm/name").strip():
        keys.add(_mapped(mapped))
    within: set[Key] = set()
    if kernel.text(f"{place}/partition"):
        with suppress(ValueError):
            major, minor = kernel.text(f"{place}/../dev").split(":")
            within.add(("device", os.makedev(int(major), int(minor))))
    return Spot(frozenset(keys), frozenset(within))


def of_name(scheme: str, name: str) -> Spot:
    """The spot of a volume of which only the name is known."""
    return Spot(frozenset(((scheme, name),)))


def of_mapped(name: str) -> Spot:
    """The spot of a logical volume, active or not, by its name in the device mapper."""
    return Spot(frozenset((_mapped(name),)))


def _mapped(name: str) -> Key:
    return "mapped", name


def _anchor(above: str) -> Key:
    try:
        found = os.stat(above)
    except OSError:
        return "path", above
    return "file", found.st_dev, found.st_ino


class Apart:
    """Spots that must all be different, each with the word for its volume."""

    def __init__(self) -> None:
        self._keys: dict[Key, str] = {}
        self._within: dict[Key, str] = {}
        self._similar: dict[Key, list[_Named]] = {}
        self._exact: dict[str, bool] = {}

    def add(self, spot: Spot, words: str) -> str | None:
        """Adds a spot. Returns the word of an earlier one that is the same volume, contains it or is inside it.

        Names that differ are the same if the file system does not tell them apart, for example by letter case.
        """
        for key in spot.keys:
            if (other := self._keys.get(key, self._within.get(key))) is not None:
                return other
        for key in spot.within:
            if (other := self._keys.get(key)) is not None:
                return other
        if (other := self._alike(spot, words)) is not None:
            return other
        self._keys.update(dict.fromkeys(spot.keys, words))
        self._within.update(dict.fromkeys(spot.within, words))
        return None

    def _alike(self, spot: Spot, words: str) -> str | None:
        """The word of an earlier spot whose name only looks different to the file system."""
        anchor = _anchor(spot.above) if spot.below else None
        for count in range(len(spot.below), 0, -1):
            name = spot.below[:count]
            whole = count == len(spot.below)
            known = self._similar.setdefault((anchor, tuple(map(_folded, name))), [])
            for other in known:
                # A directory may contain several volumes.
                if other.name != name and (whole or other.whole) and self._same(spot.above, other.name, name):
                    return other.words
            if not any(other.name == name and other.whole >= whole for other in known):
                known.append(_Named(name, whole, words))
        return None

    def _same(self, above: str, one: tuple[str, ...], other: tuple[str, ...]) -> bool:
        if above not in self._exact:
            self._exact[above] = not folds_case(above)
        return not self._exact[above] and are_one(above, one, other)


class _Named(NamedTuple):
    """A name below an existing directory. whole: it is that of a volume, not that of a directory above one."""

    name: tuple[str, ...]
    whole: bool
    words: str


def _folded(name: str) -> str:
    """A name as file systems may compare it that ignore case. More names may count as equal than there.

    vfat and exFAT ignore dots and blanks at the end.
    """
    if name.isascii():
        return name.lower().rstrip(". ")
    import unicodedata

    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).rstrip(". ")


def check_name(directory: str, below: tuple[str, ...], path: str) -> None:
    """Failed if the file system does not accept a name below an existing directory: vfat has no colons, for example.

    path: the name for the message. Names that every file system accepts are not tried.
    """
    if all(map(_is_plain, below)):
        return
    try:
        directories.try_name(directory, below)
    except OSError as error:
        hint = "its file system does not accept such a name" if error.errno in _BAD_NAMES else None
        raise Failed(f"cannot create {path}: {os.strerror(error.errno or 0)}", hint) from error


def _is_plain(name: str) -> bool:
    return len(name) <= 128 and _PLAIN.issuperset(name) and name.partition(".")[0].lower() not in _RESERVED


def folds_case(directory: str) -> bool:
    """Whether a directory ignores letter case in names. True if this cannot be tested."""
    return are_one(directory, ("x",), ("X",))


def are_one(directory: str, name: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two names below a directory are the same file there. True if this cannot be tested.

    Each name is a tuple: the directories above the file, and the file.
    """
    try:
        return directories.try_name(directory, name, other)
    except OSError:
        return True
