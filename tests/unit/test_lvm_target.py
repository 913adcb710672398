"""Logical volumes that cannot be created or replaced: each is refused before anything is created."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from qbtools.errors import QbError
from qbtools.volumes import locate
from qbtools.volumes.kind import TargetOptions
from qbtools.volumes.lvm import facts


def row(name: str, layout: str, pool: str = "") -> dict[str, str]:
    fields = dict.fromkeys(facts._FIELDS.split(","), "")
    return fields | {"vg_name": "vg", "lv_name": name, "lv_size": "4194304", "lv_layout": layout, "pool_lv": pool}


@pytest.fixture(autouse=True)
def lvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One group with a pool, a thin and a thick volume. There are no programs that could change anything."""
    rows = [row("pool", "thin,pool"), row("thin", "thin,sparse", "pool"), row("thick", "linear")]
    (tmp_path / "rows").write_text(json.dumps({"report": [{"lv": rows}]}))
    (tmp_path / "lvs").write_text(
        f"#!/bin/sh\ncase $* in *novg*) echo '  Volume group \"novg\" not found.' >&2; exit 5 ;; esac\n"
        f"exec cat {tmp_path}/rows\n"
    )
    (tmp_path / "lvs").chmod(0o755)
    for name in "lvcreate", "lvchange", "lvremove", "lvrename":
        (tmp_path / name).write_text("#!/bin/sh\nkill -KILL $PPID\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    facts.find.cache_clear()


def refused(word: str, options: TargetOptions) -> tuple[int, str]:
    with pytest.raises(QbError) as raised:
        locate.open_target(word, options)
    return raised.value.status, raised.value.message


@pytest.mark.parametrize(
    ("word", "status", "text"),
    [
        ("vg/pool/snapshot1", 2, "names that begin with snapshot are reserved for lvm"),
        ("vg/pool/a_tmeta", 2, "names with _tmeta in them are reserved for lvm"),
        ("vg/x_rimage_0", 2, "names with _rimage in them are reserved for lvm"),
        (f"vg/pool/{'a-' * 41}{'a' * 10}", 2, "it is too long for a volume in vg"),
        ("vg/pool/qbtools_0123456789abcde", 2, "such names are reserved for volumes that are not complete yet"),
        ("vg/pool/..", 2, "it is the name of a directory"),
        ("vg/nopool/a", 1, "there is no thin pool nopool in vg"),
        ("vg/thick/a", 1, "there is no thin pool thick in vg"),
        ("novg/pool/a", 1, 'Volume group "novg" not found'),
        ("novg/a", 1, 'Volume group "novg" not found'),
        ("vg/pool", 2, "is a pool"),
        ("a", 2, "a is not a logical volume"),
        ("vg/pool/thick", 5, "vg/thick already exists, but not in the pool pool"),
        ("vg/otherpool/thin", 5, "vg/thin already exists, but not in the pool otherpool"),
    ],
)
def test_targets_that_cannot_be(word: str, status: int, text: str) -> None:
    found, message = refused(f"lvm:{word}", TargetOptions(create=True, overwrite=True))
    assert (found, text in message) == (status, True), message


def test_what_may_be_there() -> None:
    assert refused("lvm:vg/pool/new", TargetOptions(overwrite=True)) == (1, "there is no logical volume new in vg")
    for word in "vg/pool/thin", "vg/thin", "vg/thick":
        assert refused(f"lvm:{word}", TargetOptions(create=True)) == (5, f"{word} already exists")
