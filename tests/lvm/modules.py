"""Prints which files our programs load, without the first slash of each: LAYERS

LAYERS: a file for the directories in which all of these are.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OTHERS = (
    "argparse cryptography.hazmat.primitives.ciphers.aead docopt hashlib hmac json scrypt tempfile xml.parsers.expat"
)


def main() -> None:
    sys.path[0] = str(ROOT)
    for path in ROOT.glob("qbtools/**/*.py"):
        import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    for name in OTHERS.split():
        import_module(name)
    places = {Path(place).resolve() for place in sys.path if Path(place).is_dir()}
    layers = sorted(place for place in places if not places & set(place.parents))
    names = [getattr(module, key, None) for module in sys.modules.values() for key in ("__file__", "__cached__")]
    files = {Path(name).resolve() for name in filter(None, names) if Path(name).is_file()} | set(ROOT.glob("bin/*"))
    Path(sys.argv[1]).write_text("".join(f"{layer}\n" for layer in layers))
    print("\n".join(str(file)[1:] for file in sorted(files) if set(layers) & set(file.parents)))


if __name__ == "__main__":
    main()
