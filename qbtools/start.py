"""Starts a program quickly: without site-packages, until a package is needed that is only there."""

from __future__ import annotations

import gc
import sys
import time

from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import NoReturn


class _SitePackages:
    """Adds site-packages when one of our packages is found nowhere else: python -S starts without them.

    Python's library itself tries to import other modules that are nowhere, such as msvcrt.
    """

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Called by the import system, after all others."""
        from qbtools.commands.cli import PACKAGES

        if "site" in sys.modules or name not in PACKAGES:
            return None
        import site
        from importlib.machinery import PathFinder

        site.main()
        return PathFinder.find_spec(name, path, target)


_OBJECTS = 50_000
"""So many new objects before Python looks for garbage: loading the modules makes fewer, and leaves no garbage."""

_LATEST = float((1 << 63) // 10**9)  # the year 2262


def _bound_clock() -> None:
    """Replaces a time that Python cannot represent by the latest possible one. Otherwise its library does not load."""
    try:
        time.time()
    except OverflowError:
        time.time = lambda: _LATEST


def run(program: str, module: str) -> NoReturn:
    """Runs a program: module has its DOC and main. If it also has load, it can be run several times: see copies.py."""
    gc.set_threshold(_OBJECTS)
    _bound_clock()
    from qbtools.commands import cli

    sys.meta_path.append(_SitePackages)
    __import__(module)
    command = sys.modules[module]
    words = sys.argv[1:]
    if words and words[0].partition("=")[0] in ("--archive", "--archives") and hasattr(command, "load"):
        from qbtools.commands import copies

        words = copies.own_words(program, words, command.load)
    cli.run(program, command.DOC, command.main, words, help_of=getattr(command, "help_of", None))
