"""The map of a thin volume, from the metadata of its pool.

Only for volumes that nobody writes to: the metadata of a volume in use lacks changes that are still in memory.
"""

from __future__ import annotations

from typing import IO, NamedTuple
from xml.parsers import expat

from qbtools.errors import Failed
from qbtools.formats.volumestream import ExtentMap
from qbtools.volumes.kind import naming
from qbtools.volumes.lvm import dm, reservation, tools

_BLOCK = 1 << 16  # bytes parsed in one step
SECTOR = 512


def read(device: int, size: int) -> ExtentMap:
    """The map of the thin volume with that device number, which has size bytes.

    Everything outside the map reads as zeros. Failed, with the reason, if no map is available.
    """
    thin = facts(device)
    with reservation.held(thin.pool):
        with tools.output("thin_dump", "-m", "--dev-id", str(thin.number), thin.metadata) as stream:
            return parse(stream, thin.number, size)


class Facts(NamedTuple):
    """A thin volume for the kernel: the device number of its pool, its number there, and the path of the metadata."""

    pool: int
    number: int
    metadata: str


def facts(device: int) -> Facts:
    """The facts about an active thin volume. Failed if it has none, or data outside its pool."""
    with naming("get the facts about its pool"):
        thin = dm.table(device)
        if thin.type != "thin" or len(thin.parameters) < 2:
            raise Failed("it is in no pool")
        if len(thin.parameters) > 2:
            raise Failed("it has an external origin outside its pool")
        pool = dm.number(thin.parameters[0])
        metadata = dm.number(dm.table(pool).parameters[0])
    return Facts(pool, int(thin.parameters[1]), f"/dev/mapper/{dm.name(metadata)}")


def parse(stream: IO[bytes], number: int, size: int) -> ExtentMap:
    """The map of the device number in the XML of thin_dump. Failed if the XML has another device or is malformed."""
    mappings = _Mappings(number, size)
    parser = expat.ParserCreate()
    parser.StartElementHandler = mappings.element
    try:
        feed(parser, stream)
        mappings.end()
    except (expat.ExpatError, ValueError, KeyError) as error:
        raise Failed(f"thin_dump printed a map that cannot be parsed: {error}") from error
    return mappings.extents


def feed(parser: expat.XMLParserType, stream: IO[bytes]) -> None:
    """Parses a stream to its end. Errors as expat's, and those of the handlers."""
    while data := stream.read(_BLOCK):
        parser.Parse(data)
    parser.Parse(b"", True)


class _Mappings:
    """Handles the elements of the XML one after the other; ValueError and KeyError if it is malformed."""

    def __init__(self, number: int, size: int) -> None:
        self.extents = ExtentMap(size)
        self._number = number
        self._block = 0  # bytes
        self._expected: int | None = None  # blocks of the device
        self._found = 0

    def element(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "range_mapping":
            self._mapping(int(attributes["origin_begin"]), int(attributes["length"]))
        elif tag == "single_mapping":
            self._mapping(int(attributes["origin_block"]), 1)
        elif tag == "device":
            if self._expected is not None or int(attributes["dev_id"]) != self._number:
                raise ValueError("a device that was not asked for")
            self._expected = int(attributes["mapped_blocks"])
        elif tag == "superblock":
            self._block = int(attributes["data_block_size"]) * SECTOR
        else:
            raise ValueError(f"an element {tag}")

    def _mapping(self, first: int, count: int) -> None:
        if self._expected is None or self._block <= 0 or first < 0 or count < 1:
            raise ValueError("a mapping out of place")
        self._found += count
        self.extents.add(first * self._block, count * self._block)

    def end(self) -> None:
        if self._found != self._expected:
            raise ValueError(f"{self._found} mapped blocks instead of {self._expected}")
