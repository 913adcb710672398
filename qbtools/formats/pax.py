"""The records of a pax extended header: `LENGTH KEY=VALUE newline`, one after the other.

LENGTH counts all bytes of its record, with LENGTH itself and the newline (IEEE Std 1003.1, "pax Extended Header").
"""

from __future__ import annotations

from qbtools.errors import Damaged
from qbtools.lean import TYPE_CHECKING, number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_SIZE = 1 << 20
"""Maximum bytes of an extended header that is read."""

_LENGTH_DIGITS = 7


def build(records: Mapping[str, str]) -> bytes:
    """The bytes of the records, in their order. Keys are ASCII without `=`."""
    return b"".join(_record(f" {key}={value}\n".encode()) for key, value in records.items())


def _record(rest: bytes) -> bytes:
    length = len(rest)
    while len(record := b"%d" % length + rest) != length:
        length = len(record)
    return record


def parse(data: bytes, wanted: Iterable[bytes]) -> dict[bytes, bytes]:
    """The last value of each wanted key that exists. Damaged for anything but complete records."""
    keys = frozenset(wanted)
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        blank = data.find(b" ", at, at + _LENGTH_DIGITS + 1)
        length = number(data[at:blank], _LENGTH_DIGITS) if blank > at else None
        if not length:
            raise Damaged("a pax record has no length")
        end = at + length
        key, equals, value = data[blank + 1 : end].partition(b"=")
        if end > len(data) or not equals or not value.endswith(b"\n"):
            raise Damaged("a pax record is malformed")
        if key in keys:
            found[key] = value[:-1]
        at = end
    return found
