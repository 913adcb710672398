"""Prints which files our programs load, without the first slash of each: LAYERS

LAYERS: a file for the directories in which all of these are, each behind the word `whole` where nothing is missing
in it that Python could look for, else `part`.
"""

from __future__ import annotations

import sys
import sysconfig
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OTHERS = (
    "argparse cryptography.hazmat.primitives.ciphers.aead docopt hashlib hmac json scrypt tempfile xml.parsers.expat"
)
OURS = ("bin", "qbtools", "tests")
UNUSED = {"test", "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip", "pydoc_data", "site-packages"}
UNUSED |= {"bench", "conventions", "e2e", "noservices", "peers", "property", "unit", "vectors"}  # of our tests


def library(places: set[Path]) -> Path | None:
    """Where Python's own modules lie, unless others lie there too."""
    found = Path(sysconfig.get_path("stdlib")).resolve()
    others = {place for place in places if found in place.parents} - {found / "lib-dynload"}
    return found if found in places and not others else None


def whole(directory: Path) -> set[Path]:
    """The files of a directory that Python could want, but for what lies in UNUSED directories right in it."""
    below = (path for path in directory.iterdir() if path.name not in UNUSED and not path.name.startswith("config-"))
    found = (file for path in below for file in (path.rglob("*") if path.is_dir() else (path,)))
    return {file for file in found if file.is_file() and ".opt-" not in file.name}


def main() -> None:
    sys.path[0] = str(ROOT)
    for path in ROOT.glob("qbtools/**/*.py"):
        import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    for name in OTHERS.split():
        import_module(name)
    places = {Path(place).resolve() for place in sys.path if Path(place).is_dir()}
    names = [getattr(module, key, None) for module in sys.modules.values() for key in ("__file__", "__cached__")]
    files = {Path(name).resolve() for name in filter(None, names) if Path(name).is_file()}
    layers = {place: "part" for place in places - {ROOT} if not places & set(place.parents)}
    for directory in filter(None, [library(places), *(ROOT / name for name in OURS)]):
        layers[directory] = "whole"
        files |= whole(directory)
    Path(sys.argv[1]).write_text("".join(f"{how} {place}\n" for place, how in sorted(layers.items())))
    print("\n".join(str(file)[1:] for file in sorted(files) if set(layers) & set(file.parents)))


if __name__ == "__main__":
    main()
