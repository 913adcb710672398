"""Test vectors: a text header that says what must happen, an empty line, then the bytes. One fault each.

    about: what is tried
    status: 4
    message: what the error says
    ...

A key stands once; what keys there are, the test of each kind of vector says.
"""

from __future__ import annotations

from pathlib import Path

Vector = tuple[dict[str, str], bytes]


def read(path: Path) -> Vector:
    """The header and the bytes of a vector."""
    text, _, data = path.read_bytes().partition(b"\n\n")
    said = dict(line.split(": ", 1) for line in text.decode("utf-8").split("\n"))
    return said, data


def read_all(folder: Path) -> dict[str, Vector]:
    """All vectors of a folder (files called *.vector), by name."""
    return {path.stem: read(path) for path in sorted(folder.glob("*.vector"))}


def write_all(folder: Path, vectors: dict[str, Vector]) -> None:
    """Makes the vectors of a folder these and no other."""
    for path in folder.glob("*.vector"):
        path.unlink()
    for name, (said, data) in vectors.items():
        text = "".join(f"{key}: {value}\n" for key, value in said.items()) + "\n"
        (folder / f"{name}.vector").write_bytes(text.encode("utf-8") + data)
