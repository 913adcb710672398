"""Finds the volume that a word of the command line means: `SCHEME:NAME`, or a name alone.

A name alone belongs to the kind that has it. If it is also an existing path, it means the path.
"""

from __future__ import annotations

import os
import stat
import sys

from qbtools.errors import Failed, OtherPython, UsageError
from qbtools.lean import TYPE_CHECKING
from qbtools.volumes import kinds, spots
from qbtools.volumes.kind import Kind, Source, SourceOptions, Target, TargetOptions, naming

if TYPE_CHECKING:
    from qbtools.formats.volumestream import ExtentMap
    from qbtools.volumes.kind import Room
    from qbtools.volumes.spots import Spot

_SCHEME = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+.-")


def known() -> dict[str, Kind]:
    """All kinds, by scheme: every module in qbtools/volumes/kinds."""
    return {scheme: _kind(scheme) for scheme in _schemes()}


def _schemes() -> list[str]:
    """The scheme of each kind, which is also the name of its module."""
    found = {file for place in kinds.__path__ for file in os.listdir(place) if file.endswith(".py")}
    return [file[:-3] for file in sorted(found - {"__init__.py"})]


def _kind(scheme: str) -> Kind:
    module = f"{kinds.__name__}.{scheme}"
    __import__(module)
    kind: Kind = sys.modules[module].KIND
    return kind


def open_source(word: str, options: SourceOptions) -> Source:
    """The volume to read. UsageError if word is not a volume, Failed if it does not exist; more in Kind."""
    kind, name = existing(word)
    return kind.open_source(name, options)


def changed(word: str, source: Source, since: str, size: int, block: int) -> ExtentMap:
    """What may have changed in the source that open_source(word) has opened, as Source.changed(). since: a word."""
    kind, name = existing(since)
    if kind.scheme != existing(word)[0].scheme:
        raise Failed(f"{since} is a snapshot of another kind of volume")
    return source.changed(name, size, block)


def open_target(word: str, options: TargetOptions) -> Target:
    """The volume to fill. UsageError if word cannot be a volume. Refused if it exists, unless overwrite is set."""
    kind, name = _explicit(word) or _sole(_having(word), word) or _to_be_made(word)
    if options.create_options and not kind.takes_options:
        raise UsageError(f"{kind.scheme}: volumes of this kind have no options of their creation")
    return kind.open_target(name, options)


def sizes(word: str, options: SourceOptions) -> tuple[int, int]:
    """The size of a volume in bytes, and an estimate of the bytes that are data."""
    kind, name = existing(word)
    try:
        return kind.sizes(name, options)
    except OtherPython as error:
        from qbtools.volumes.nbd import elsewhere

        return elsewhere.sizes(error, f"{kind.scheme}:{name}", options)


def existing(word: str) -> tuple[Kind, str]:
    """Kind and name of an existing volume. With a scheme, it may not exist. Errors as open_source()."""
    found = _explicit(word) or _sole(_having(word), word)
    if found:
        return found
    if _is_path(word) or os.path.exists(word):
        with naming(f"open {word}"):
            raise _no_volume(word, os.stat(word).st_mode)
    raise UsageError(f"{word} is neither an existing path nor another volume", _hint())


def explicit(word: str) -> str:
    """The word of an existing volume with its scheme, so that its kind is known later. Errors as open_source()."""
    kind, name = existing(word)
    return f"{kind.scheme}:{name}"


def complete(word: str) -> bool:
    """Whether the volume of a target's word exists and is complete; more in Kind.complete()."""
    found = _explicit(word) or _sole(_having(word), word)
    return found is not None and found[0].complete(found[1])


def file_path(word: str) -> str | None:
    """The path of the file that a target's word means, existing or not; None if it does not mean a file."""
    found = _explicit(word) or _sole(_having(word), word)
    if found is not None:
        return found[0].path(found[1])
    return word if _is_path(word) else None


def spot(word: str) -> Spot:
    """The spot of the volume of a target's word. A word that is not known to be another volume counts as a file.

    The directories above a file may be missing.
    """
    found = _explicit(word) or _sole(_having(word), word)
    if found is None:
        having = [kind for kind in known().values() if kind.could_be_made(word)]
        found = (having[0], word) if having else None
    return found[0].spot(found[1]) if found else spots.of_file(word)


def look(word: str, size: int | None, options: TargetOptions, parents: bool) -> Room | None:
    """Opens a target and closes it again, to raise every error of open_target() early. Changes nothing.

    size: bytes of the volume, None if not known. Refused if the target cannot have this size. parents: missing
    directories above a file will be created, so the first of them is checked instead. Returns the room of the target.
    """
    path = file_path(word) if parents else None
    if path is not None:
        place = spots.of_file(path)
        if len(place.below) > 1:
            first = os.path.join(place.above, place.below[0])
            if os.path.lexists(first):
                raise Failed(f"cannot create {path}: {first} is not a directory")
            spots.check_name(place.above, place.below, path)
            word = f"file:{first}"
    try:
        with open_target(word, options) as target:
            target.check(size)
            return target.room()
    except OtherPython:
        return None  # the stage that fills the target will look


def _explicit(word: str) -> tuple[Kind, str] | None:
    """Kind and name of `SCHEME:NAME`; None if word has no scheme."""
    if word in ("", "-"):
        raise UsageError("a volume is a file or a block device, not a stream" if word else "a volume has no name")
    scheme, colon, name = word.partition(":")
    if not colon or not scheme.isascii() or not scheme[:1].isalpha() or not set(scheme) <= _SCHEME:
        return None
    if scheme not in _schemes():
        if os.path.lexists(word):
            return None
        raise UsageError(f"{word}: unknown kind of volume: {scheme}", f"{_hint()}; a path may begin with ./")
    if not name:
        raise UsageError(f"{word} has no name of a volume")
    return _kind(scheme), name


def _having(word: str) -> list[Kind]:
    """The kinds that have a volume called word, without those of which another one of them is a special case."""
    having = [kind for kind in known().values() if kind.exists(word)]
    return [kind for kind in having if kind.scheme not in {other.narrows for other in having}]


def _sole(having: list[Kind], word: str) -> tuple[Kind, str] | None:
    """The only element; None if there is none."""
    if len(having) > 1:
        words = " or ".join(f"{kind.scheme}:{word}" for kind in having)
        raise UsageError(f"{word} could mean more than one volume", f"write {words}")
    return (having[0], word) if having else None


def _to_be_made(word: str) -> tuple[Kind, str]:
    if word.endswith("/"):
        raise UsageError(f"{word} is a directory, not a volume")
    if os.path.exists(word):
        with naming(f"create {word}"):
            raise _no_volume(word, os.stat(word).st_mode)
    found = _sole([kind for kind in known().values() if kind.could_be_made(word)], word)
    if found:
        return found
    if _is_path(word):
        with naming(f"create {word}"):
            os.stat(os.path.dirname(os.path.realpath(word)))
    hint, above = _hint(), os.path.dirname(word)
    if above and not os.path.lexists(above):
        hint = f"create the directory {above} first if it is a file; {hint}"
    raise UsageError(f"{word} does not exist, and no kind of volume can be created with this name", hint)


def _is_path(word: str) -> bool:
    """Whether word can only be a path."""
    return "/" not in word or word.startswith(("/", "./", "../"))


def _hint() -> str:
    return f"the kinds are {', '.join(f'{scheme}:' for scheme in _schemes())}"


def _no_volume(word: str, mode: int) -> UsageError:
    names = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
    }
    return UsageError(f"{word} is {names.get(stat.S_IFMT(mode), 'something else')}, not a file or a block device")
