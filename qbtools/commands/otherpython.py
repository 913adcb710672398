"""Starts a stage again with the Python that has a package which this one does not have."""

from __future__ import annotations

import os
import sys

from qbtools.errors import OtherPython
from qbtools.lean import suppress

_TRIED = "QB_OTHER_PYTHON"
_STAGES = ("qb-volread", "qb-volwrite", "qb-tarextract")  # they open their volumes before they read or write anything


def restart(program: str, error: OtherPython) -> None:
    """Runs the program again, with the same words. Returns if it is not one of the stages, or cannot be started.

    It also returns if that was tried before, so that this cannot go on without an end.
    """
    if program in _STAGES and _TRIED not in os.environ:
        with suppress(OSError):
            os.execve(error.interpreter, [error.interpreter, "-IS", *sys.argv], {**os.environ, _TRIED: "1"})
