"""Names of groups and volumes. The limits were observed with lvm 2.03.16 and Linux 6.1."""

from __future__ import annotations

import pytest

from qbtools.volumes.lvm import lvnames


@pytest.mark.parametrize("volume", ["a", "A9", "a.b+c_d-e", "_x", "+", "lvol0", "mypvmove", "asnapshot", "a" * 122])
def test_good_names(volume: str) -> None:
    assert lvnames.volume_problem("vg", volume) is None


@pytest.mark.parametrize(
    ("volume", "problem"),
    [
        ("", "empty"),
        (".", "directory"),
        ("..", "directory"),
        ("-a", "hyphen"),
        ("a b", "characters"),
        ("a/b", "characters"),
        ("a\n", "characters"),
        ("é", "characters"),
        ("a:b", "characters"),
        ("snapshot", "begin with snapshot"),
        ("snapshot1", "begin with snapshot"),
        ("pvmove0", "begin with pvmove"),
        *((f"x{part}", part) for part in lvnames.RESERVED_PARTS),
        ("a_mlogx", "_mlog"),
        ("a" * 123, "too long"),
        ("a" * 200, "too long"),
    ],
)
def test_names_that_lvm_would_refuse(volume: str, problem: str) -> None:
    assert problem in (lvnames.volume_problem("vg", volume) or "")


def test_hyphens_count_twice() -> None:
    assert lvnames.mapper_name("v-g", "a-b") == "v--g-a--b"
    assert lvnames.mapper_name("vg", "pool", "tpool") == "vg-pool-tpool"
    assert lvnames.volume_problem("vg", "a-" * 40 + "aaaa") is None
    assert "too long" in (lvnames.volume_problem("vg", "a-" * 40 + "aaaaa") or "")
    assert lvnames.volume_problem("v" * 63, "a" * 61) is None
    assert "too long" in (lvnames.volume_problem("v-" * 31, "a" * 61) or "")


def test_names_are_split() -> None:
    assert lvnames.split("vg/lv") == ("vg", "lv")
    assert lvnames.split("vg/pool/lv") == ("vg", "pool", "lv")
    for name in ("", "lv", "a/b/c/d", "/dev/vg/lv", "vg/", "/lv", "vg//lv", "-vg/lv", "vg/l v", "vg/lv\n"):
        assert lvnames.split(name) is None, name
