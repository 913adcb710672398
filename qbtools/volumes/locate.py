"""Which kind of volume a word of the command line means."""

from __future__ import annotations

import os
import stat

from qbtools.errors import UsageError
from qbtools.volumes.block import BlockSource, BlockTarget
from qbtools.volumes.file import FileSource, FileTarget
from qbtools.volumes.kind import Source, Target, naming


def open_source(word: str) -> Source:
    """The volume to read. UsageError where word is no volume, Failed where it is not there."""
    with naming(f"open {word}"):
        mode = os.stat(_path(word)).st_mode
    if stat.S_ISREG(mode):
        return FileSource(word)
    if stat.S_ISBLK(mode):
        return BlockSource(word)
    raise _no_volume(word, mode)


def open_target(word: str, overwrite: bool) -> Target:
    """The volume to fill. UsageError where word can be no volume; Refused where it exists, unless overwrite."""
    path = _path(word)
    if path.endswith("/"):
        raise UsageError(f"{word} names a directory, not a volume")
    with naming(f"make {word}"):
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError:
            mode = stat.S_IFREG  # it will be one
    if stat.S_ISREG(mode):
        return FileTarget(word, overwrite)
    if stat.S_ISBLK(mode):
        return BlockTarget(word, overwrite)
    raise _no_volume(word, mode)


def _path(word: str) -> str:
    if word in ("", "-"):
        raise UsageError("a volume is a file or a block device, not a stream" if word else "the volume has no name")
    return word


def _no_volume(word: str, mode: int) -> UsageError:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
    }
    return UsageError(f"{word} is {kinds.get(stat.S_IFMT(mode), 'something else')}, not a file or a block device")
