"""The places of volumes. They tell whether two names mean the same volume, before anything is written."""

from __future__ import annotations

import os
import stat

from qbtools.lean import TYPE_CHECKING, NamedTuple, suppress
from qbtools.volumes import kernel

if TYPE_CHECKING:
    Key = tuple[object, ...]


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
        self._folded: dict[Key, tuple[str, tuple[str, ...]]] = {}

    def add(self, spot: Spot, words: str) -> str | None:
        """Adds a spot. Returns the word of an earlier one that is the same volume, contains it or is inside it.

        Names that differ only in letter case are the same if the file system does not tell them apart.
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
        if not spot.below:
            return None
        key = (*_anchor(spot.above), tuple(map(_folded, spot.below)))
        other, below = self._folded.setdefault(key, (words, spot.below))
        return other if below != spot.below and folds_case(spot.above) else None


def _folded(name: str) -> str:
    """A name as case-insensitive file systems compare it. More names may count as equal than there."""
    if name.isascii():
        return name.lower()
    import unicodedata

    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def folds_case(directory: str) -> bool:
    """Whether a directory ignores letter case in names. True if this cannot be tested."""
    name = f".qb-case-{os.urandom(8).hex()}x"
    path, other = os.path.join(directory, name), os.path.join(directory, name.upper())
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        try:
            return os.path.lexists(other)
        finally:
            os.unlink(path)
    except OSError:
        return True
