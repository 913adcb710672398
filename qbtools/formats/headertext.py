"""The lines `key=value` of a backup-header."""

from __future__ import annotations

import re
from collections.abc import Collection

from qbtools.errors import Damaged

WORD = re.compile(r"[A-Za-z0-9-]+", re.ASCII)
"""A key, and the value of a known key."""


def values(data: bytes, known: Collection[str]) -> dict[str, str]:
    """The known keys with their values, which are only checked to be words. Damaged for a line that is not key=value,
    and for a known key that occurs twice. Other keys are skipped."""
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise Damaged("backup-header: not ASCII") from None
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
        complete = len(lines)
    else:
        complete = len(lines) - 1
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if number <= complete:
            line = line.removesuffix("\r")
        key, equals, value = line.partition("=")
        printable = all("!" <= letter <= "~" for letter in line)
        if not equals or "=" in value or not printable or not WORD.fullmatch(key):
            raise Damaged(f"backup-header: line {number} is not key=value")
        if key not in known:
            continue
        if key in found:
            raise Damaged(f"backup-header: {key} occurs twice")
        if not WORD.fullmatch(value):
            raise Damaged(f"backup-header: {key} has a malformed value: {value}")
        found[key] = value
    return found
