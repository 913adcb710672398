"""The things on a host that no run saves: the lines of its verb `unsaved`."""

from __future__ import annotations

import os
import re

from qbtools.domains.lines import read_fields
from qbtools.errors import Damaged
from qbtools.lean import NamedTuple
from qbtools.streams import Reader

NONE = "-"
"""Stands for nothing in a field."""

_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")


class Unsaved(NamedTuple):
    """One such thing. domain: its owner, None for no domain. path: any text that names it."""

    domain: str | None
    path: str
    reason: str

    def to_line(self) -> str:
        """The fields separated by tabs, with newline; all of it printable ASCII."""
        return "\t".join((self.domain or NONE, escaped(self.path), escaped(self.reason))) + "\n"


def read(reader: Reader) -> list[Unsaved]:
    """The lines of to_line(), up to EOF. Damaged for any other."""
    found = []
    for number, fields in read_fields(reader):
        if len(fields) != 3 or not all(fields):
            raise Damaged(f"line {number} is not a domain, a path and a reason")
        domain, path, reason = fields
        found.append(Unsaved(None if domain == NONE else domain, plain(path), plain(reason)))
    return found


def escaped(text: str) -> str:
    """text with a backslash and three octal digits for a backslash, and for any byte that is not printable ASCII."""
    return "".join(chr(one) if 0x20 <= one < 0x7F and one != 0x5C else f"\\{one:03o}" for one in os.fsencode(text))


def plain(text: str) -> str:
    """The reverse of escaped()."""
    return os.fsdecode(_OCTAL.sub(lambda match: bytes((int(match[1], 8),)), text.encode("ascii")))
