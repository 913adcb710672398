"""An archive of files that contain only zeros, for tests of what is done with each of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from support import bash


def archive_of_zeros(place: Path, sizes: Mapping[str, int], options: str = "") -> Path:
    """Of files of these sizes in bytes, in chunks of 256 KiB; `passphrase` lies beside it. options: for qb-seal."""
    (place / "passphrase").write_text("of zeros\n")
    (place / "passphrase").chmod(0o600)
    (place / "list").write_text("".join(f"{name}\t{size}\n" for name, size in sizes.items()) + "end\n")
    made = bash(
        f"cd {place} && qb-seal --opaque --logn 10 --chunk-size 256K --passphrase-file passphrase {options}"
        " --from-command 'head -c \"$QB_SOURCE\" /dev/zero' list >a.qb"
    )
    assert (made.returncode, made.stderr) == (0, b"")
    return place / "a.qb"
