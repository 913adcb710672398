"""Finds the Python binding of libnbd, which is not on PyPI: the system's packages have it.

A virtual environment does not see it. So it is loaded from the directory of the system, if it was made for this version
of Python. Otherwise the stage must run under the system's own Python.
"""

from __future__ import annotations

import os
import sys

from qbtools.errors import Failed, OtherPython
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

SYSTEM = "/usr/bin/python3"
_HINT = "install the package python3-libnbd of Debian, Ubuntu or Fedora"


def load() -> Any:
    """The module nbd. OtherPython if only the Python of the system has it, Failed if it is not installed."""
    module = _ordinary() or _by_path(_places())
    if module is not None:
        return module
    if os.path.realpath(sys.executable) != os.path.realpath(SYSTEM) and os.access(SYSTEM, os.X_OK) and _seen():
        raise OtherPython(
            SYSTEM,
            f"the Python binding of libnbd is missing for Python {sys.version_info[0]}.{sys.version_info[1]}",
            f"run the program with {SYSTEM}",
        )
    raise Failed("the Python binding of libnbd is not installed, and NBD needs it", _HINT)


def _ordinary() -> Any:
    """The module as Python finds it, with the site-packages that start.py left out."""
    if (module := _imported()) is not None or "site" in sys.modules:
        return module
    import site

    site.main()
    return _imported()


def _imported() -> Any:
    try:
        module = __import__("nbd")
    except ImportError:
        return None
    return module if hasattr(module, "NBD") else None  # another package may have that name


def _places() -> list[str]:
    """The directories in which distributions have it for this version of Python."""
    return ["/usr/lib/python3/dist-packages", f"/usr/lib64/python3.{sys.version_info[1]}/site-packages"]


def _seen() -> bool:
    """Whether it is installed for another version of Python."""
    import glob

    found = glob.glob("/usr/lib/python3/dist-packages/nbd.py") or glob.glob("/usr/lib64/python3.*/site-packages/nbd.py")
    return bool(found)


def _by_path(places: list[str]) -> Any:
    """The module from one of these directories, of which nothing else is imported; None if it is in none."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    for place in places:
        made = []
        for name in ("libnbdmod", "nbd"):  # the second one imports the first one
            spec = PathFinder.find_spec(name, [place])  # finds only what is made for this version of Python
            if spec is None or spec.loader is None:
                break
            try:
                module = sys.modules[name] = module_from_spec(spec)
                spec.loader.exec_module(module)
            except ImportError:
                break
            made.append(module)
        if len(made) == 2:
            return made[1]
        for name in ("libnbdmod", "nbd"):
            sys.modules.pop(name, None)
    return None
