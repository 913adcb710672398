#!/usr/bin/env python3
"""Writes the vectors of outer archives: python3 tests/vectors/outer/generate.py

Each is fed to five programs; a key of its name says the exit status and how the error begins:

    verify       qb-unseal --verify
    read         qb-unseal vm1/root.img
    list         qb-unseal --list
    structure    qb-unseal --structure
    header       qb-header read

`stdout` is how many bytes of vm1/root.img come out of `read`: never anything but its true beginning. `options` go to
all but `structure`, `warning` is how the warning of `verify` begins. The passphrase is
`correct horse battery staple`; vm1/root.img is what archivebytes.content() gives for that name, 600 bytes.

Of a family of like vectors only some are kept as files, and none that would be larger than LARGEST: the test has the
others made here.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

import outercontainers  # noqa: E402
import outerheaders  # noqa: E402
import outerkeys  # noqa: E402
import outermembers  # noqa: E402
import outerorder  # noqa: E402
from outerbase import ROOT_DATA  # noqa: E402, F401
from vectors import vectorfile  # noqa: E402
from vectors.archivebytes import PASSPHRASE  # noqa: E402, F401
from vectors.vectorfile import Vector  # noqa: E402

LARGEST = 20_000
"""Bytes of the largest vector that is kept."""

FAMILIES = (
    "flip-first-",
    "flip-last-",
    "flip-empty-",
    "flip-manifest-",
    "refixed-header-",
    "cost-header-",
    "cost-manifest-",
    "pax-name-",
    "ended-before-",
    "keys-",
)
"""What the names of the vectors begin with that are like others, in another place."""


def vectors() -> dict[str, Vector]:
    """All of them, by name."""
    made: dict[str, Vector] = {}
    for module in (outercontainers, outerorder, outerheaders, outermembers, outerkeys):
        made |= module.vectors()
    return made


def kept(made: dict[str, Vector]) -> dict[str, Vector]:
    """Those that are kept as files."""
    return {
        name: (said, data)
        for name, (said, data) in made.items()
        if len(data) <= LARGEST and not name.startswith(FAMILIES)
    }


if __name__ == "__main__":
    vectorfile.write_all(HERE, kept(vectors()))
