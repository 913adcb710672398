"""Lines of fields separated by tabs, which pass domains and volumes from one program to the next."""

from __future__ import annotations

from collections.abc import Iterator

from qbtools.errors import Damaged, Truncated
from qbtools.streams import Reader

MAX_LINE = 4096


def read_fields(reader: Reader, comments: bool = False) -> Iterator[tuple[int, list[str]]]:
    """The number of each line, from 1, and its fields, up to EOF.

    comments: skip empty lines, and lines that begin with #, whatever they contain.
    Truncated for a last line without newline. Damaged for a line of more than MAX_LINE bytes with its newline, or
    with anything but printable ASCII and tabs.
    """
    number = 0
    while line := reader.read_line(MAX_LINE):
        number += 1
        if not line.endswith(b"\n"):
            if len(line) == MAX_LINE:
                raise Damaged(f"line {number} is longer than {MAX_LINE} bytes")
            raise Truncated(f"{reader.name} ends too early: line {number} has no newline")
        line = line[:-1]
        if comments and (not line or line.startswith(b"#")):
            continue
        text = line.decode("ascii", "replace")
        if not line.isascii() or not text.replace("\t", "").isprintable():
            raise Damaged(f"line {number} has characters other than printable ASCII and tabs")
        yield number, text.split("\t")
