"""Prints the packages in setup.py, one per line: EXTRA... It needs neither setuptools nor a build."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


def settings() -> dict[str, Any]:
    """What setup.py gives to setup()."""
    given: dict[str, Any] = {}
    module = ModuleType("setuptools")
    module.setup = given.update  # type: ignore[attr-defined]
    module.find_packages = lambda **_words: []  # type: ignore[attr-defined]
    sys.modules["setuptools"] = module
    runpy.run_path(str(Path(__file__).resolve().parents[1] / "setup.py"))
    return given


if __name__ == "__main__":
    found = settings()
    packages = list(found["install_requires"])
    for extra in sys.argv[1:]:
        packages += found["extras_require"][extra]
    print("\n".join(packages))
