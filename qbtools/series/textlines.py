"""The common part of the texts of a series: a first line, lines `WORD VALUE`, and the line `end SHA256`.

The SHA-256 is that of all lines before it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import NoReturn

from qbtools.errors import Damaged
from qbtools.formats import header
from qbtools.lean import number

NONE = "-"
"""Means that there is none."""

_DIGEST = re.compile("[0-9a-f]{64}")


def join(magic: str, lines: Iterable[str]) -> bytes:
    """The text with these lines."""
    data = "".join(f"{line}\n" for line in (magic, *lines)).encode("utf-8", "surrogateescape")
    return data + f"end {hashlib.sha256(data).hexdigest()}\n".encode("ascii")


def split(data: bytes, magic: str, name: str) -> list[str]:
    """The lines of such a text, without the first and the last one. Damaged if it is malformed or incomplete.

    name: of its file, for the message.
    """
    head, _, last = data.removesuffix(b"\n").rpartition(b"\n")
    head += b"\n"
    if not data.startswith(f"{magic}\n".encode("ascii")):
        raise Damaged(f"{name} does not begin with the line {magic}")
    if not data.endswith(b"\n") or not last.startswith(b"end "):
        raise Damaged(f"{name} is incomplete: it does not end with the line `end`")
    if last != f"end {hashlib.sha256(head).hexdigest()}".encode("ascii"):
        raise Damaged(f"{name} is damaged: its lines do not fit its last line")
    return head.decode("utf-8", "surrogateescape").split("\n")[1:-1]


class Fields:
    """Takes values from lines in order. Damaged, with the name of the file, for everything unexpected."""

    def __init__(self, lines: Sequence[str], name: str) -> None:
        self._lines = lines
        self._name = name
        self._at = 0

    def value(self, word: str) -> str:
        """The value of the next line, which must have this word."""
        found = self.maybe(word)
        return self.bad() if found is None else found

    def maybe(self, word: str) -> str | None:
        """The same, or None if the next line has another word, or there is none."""
        if self._at < len(self._lines):
            first, blank, value = self._lines[self._at].partition(" ")
            if first == word and blank:
                self._at += 1
                return value
        return None

    def number(self, text: str, low: int = 0) -> int:
        """A decimal number of at least low."""
        found = number(text.encode("utf-8", "surrogateescape"))
        return found if found is not None and found >= low else self.bad()

    def backup_id(self, text: str) -> str:
        """A backup ID."""
        return self.bad() if header.backup_id_problem(text) else text

    def id_or_none(self, text: str) -> str | None:
        """A backup ID, or None for NONE."""
        return None if text == NONE else self.backup_id(text)

    def digest(self, text: str) -> str:
        """A SHA-256 in hexadecimal."""
        return text if _DIGEST.fullmatch(text) else self.bad()

    def end(self) -> None:
        """No line must be left."""
        if self._at < len(self._lines):
            self.bad()

    def bad(self) -> NoReturn:
        """Damaged."""
        raise Damaged(f"{self._name} is malformed in line {self._at + 1}")
