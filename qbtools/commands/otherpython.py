"""Starts a stage again with the Python that has a package which this one does not have."""

from __future__ import annotations

import os
import sys

import qbtools
from qbtools.errors import OtherPython
from qbtools.lean import suppress

_TRIED = "QB_OTHER_PYTHON"
_RUN = (  # a program that pip has installed finds qbtools only with its own Python
    "import sys; del sys.argv[0]; sys.path.insert(0, sys.argv.pop(0)); path = sys.argv[0]; "
    "exec(compile(open(path).read(), path, 'exec'), {'__name__': '__main__', '__file__': path})"
)
_STAGES = ("qb-volread", "qb-volwrite", "qb-tarextract")  # they open their volumes before they read or write anything


def restart(program: str, error: OtherPython) -> None:
    """Runs the program again, with the same words. Returns if it is not one of the stages, or cannot be started.

    It also returns if that was tried before, so that this cannot go on without an end.
    """
    if program in _STAGES and _TRIED not in os.environ:
        with suppress(OSError):
            root = os.path.dirname(os.path.dirname(qbtools.__file__))
            words = [error.interpreter, "-IS", "-c", _RUN, root, *sys.argv]
            os.execve(error.interpreter, words, {**os.environ, _TRIED: "1"})
