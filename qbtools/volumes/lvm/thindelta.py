"""Finds where two thin snapshots may differ, from the metadata of their pool.

A pool does not write to a chunk that several volumes share. So what is in one chunk for both snapshots is the same.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import IO
from xml.parsers import expat

from qbtools.errors import Failed, QbError
from qbtools.formats.volumestream import MAX_SIZE, ExtentMap
from qbtools.lean import number
from qbtools.volumes import changes
from qbtools.volumes.kind import naming
from qbtools.volumes.lvm import dm, facts, reservation, thinmap, tools
from qbtools.volumes.lvm.facts import Part, Volume

_CHANGED = ("different", "left_only", "right_only")


def kept(volume: Volume) -> Volume:
    """The same volume, a snapshot of ours. Failed if it cannot be compared with another one."""
    if volume.mark is None or not volume.read_only:
        raise Failed(f"{volume.full} is no snapshot of qbtools")
    if not volume.thin:
        raise Failed(f"{volume.full} is not in a thin pool")
    if not volume.active:
        raise Failed(f"{volume.full} is not active")
    return volume


def stamps(names: Sequence[str]) -> dict[str, str | QbError]:
    """For each snapshot a word that changes if it is replaced or activated for writing, or if its pool is repaired; or
    why there is none. lvm is asked once for each group.

    names: GROUP/NAME.
    """
    groups: dict[str, tuple[dict[str, Volume], list[Part]]] = {}
    found: dict[str, str | QbError] = {}
    for full in names:
        group, _, name = full.partition("/")
        try:
            if group not in groups:
                groups[group] = facts.parts(group)
            volumes, parts = groups[group]
            if name not in volumes:
                raise Failed(f"there is no logical volume {name} in {group}")
            found[full] = _stamp(kept(volumes[name]), parts)
        except QbError as error:
            found[full] = error
    return found


def _stamp(volume: Volume, parts: Sequence[Part]) -> str:
    device = _device(volume)
    thin = thinmap.facts(device)
    with naming(f"read {volume.path}"):
        mapped = dm.status(device).parameters[0]
    metadata = next((part.metadata for part in parts if part.name == volume.pool), "")
    place = [(part.uuid, part.ranges) for part in parts if metadata and part.name == metadata]
    where = hashlib.sha256(repr(place).encode()).hexdigest()[:16]  # a repair puts the metadata in another place
    return f"{volume.uuid}-{thin.number}-{mapped}-{where}"


def read(old: Volume, device: int, size: int, block: int) -> ExtentMap:
    """Everything that may differ between the snapshot old and the thin volume with that device number and size.

    Nobody writes to either. Failed, with the reason, if this cannot be known.
    """
    before, after = thinmap.facts(_device(old)), thinmap.facts(device)
    if before.pool != after.pool:
        raise Failed(f"{old.full} is in another pool")
    words = "--thin1", str(before.number), "--thin2", str(after.number)
    with reservation.held(after.pool), tools.output("thin_delta", "-m", *words, after.metadata) as stream:
        found = parse(stream, (before.number, after.number), size, block)
    return changes.grown(found, old.size, block)


def _device(volume: Volume) -> int:
    with naming(f"open {volume.path}"):
        return os.stat(volume.path).st_rdev


def parse(stream: IO[bytes], numbers: tuple[int, int], size: int, block: int) -> ExtentMap:
    """What differs between two devices in the XML of thin_delta. Failed if it has others, or is malformed or cut."""
    differences = _Differences(numbers, size, block)
    parser = expat.ParserCreate()
    parser.StartElementHandler = differences.start
    parser.EndElementHandler = differences.end
    try:
        thinmap.feed(parser, stream)
        if not differences.complete:
            raise ValueError("no differences")
    except (expat.ExpatError, ValueError, KeyError) as error:
        raise Failed(f"thin_delta printed something that cannot be parsed: {error}") from error
    return differences.found


class _Differences:
    """Handles the elements of the XML one after the other; ValueError and KeyError if it is malformed."""

    def __init__(self, numbers: tuple[int, int], size: int, block: int) -> None:
        self.found = ExtentMap(size, 0)
        self.complete = False
        self._numbers = numbers
        self._block = block
        self._chunk = 0  # bytes
        self._open: list[str] = []
        self._at = 0  # in chunks, up to which all is known

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "superblock" and not self._open:
            self._chunk = _number(attributes["data_block_size"]) * thinmap.SECTOR
        elif tag == "diff" and self._open == ["superblock"] and self._chunk and not self.complete:
            if (_number(attributes["left"]), _number(attributes["right"])) != self._numbers:
                raise ValueError("devices that were not asked for")
        elif self._open == ["superblock", "diff"] and (tag == "same" or tag in _CHANGED):
            self._range(tag, _number(attributes["begin"]), _number(attributes["length"]))
        else:
            raise ValueError(f"an element {tag}")
        self._open.append(tag)

    def _range(self, tag: str, begin: int, length: int) -> None:
        if begin < self._at or not length:
            raise ValueError("a range out of place")
        self._at = begin + length
        if tag in _CHANGED:
            changes.add(self.found, begin * self._chunk, self._at * self._chunk, self._block)

    def end(self, tag: str) -> None:
        self._open.pop()
        self.complete = self.complete or tag == "diff"


def _number(text: str) -> int:
    found = number(text.encode())
    if found is None or found > MAX_SIZE:
        raise ValueError(f"{text} is not a number")
    return found
