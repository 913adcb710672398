"""Logical volumes that are read: which word means one, through which snapshot, with which map."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lvm import guest
from lvm.guest import MiB

from qbtools.errors import UsageError
from qbtools.volumes import locate

PATTERN = os.urandom(1 * MiB)


@pytest.fixture(scope="module")
def thin(vg: str) -> str:
    """A thin volume of 16 MiB with two MiB of data, apart."""
    device = guest.thin(f"{vg}/thin", 16 * MiB)
    guest.write(device, 0, PATTERN)
    guest.write(device, 8 * MiB, PATTERN)
    return f"{vg}/thin"


@pytest.fixture(scope="module")
def thick(vg: str) -> str:
    """A thick volume of 4 MiB."""
    device = guest.thick(f"{vg}/thick-one", 4 * MiB)
    guest.write(device, 0, PATTERN * 4)
    return f"{vg}/thick-one"


def kind(word: str) -> str:
    return locate.existing(word)[0].scheme


def test_words_that_mean_a_logical_volume(vg: str, thin: str, thick: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(f"/dev/{thin}")
    words = [thin, f"/dev/{thin}", f"/dev/mapper/{vg}-thin", f"/dev/mapper/{vg}-thick--one", str(tmp_path / "link")]
    assert {word: kind(word) for word in words} == dict.fromkeys(words, "lvm")
    assert kind(f"lvm:{thin}") == "lvm"
    assert kind(f"block:/dev/{thin}") == "block"
    assert kind(f"/dev/mapper/{vg}-pool_tdata") == "block", "a part of a volume is none"
    assert kind("/dev/loop0") == "block"


def test_a_volume_that_is_not_active_has_no_path(vg: str) -> None:
    guest.thin(f"{vg}/off", 1 * MiB)
    guest.lvm("lvchange", "-an", f"{vg}/off")
    assert not os.path.exists(f"/dev/{vg}/off")
    assert kind(f"/dev/{vg}/off") == kind(f"{vg}/off") == "lvm"
    assert guest.volread(f"{vg}/off").size == 4 * MiB, "rounded up to an extent"


def test_words_that_mean_none(vg: str, thin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="neither an existing path nor another volume"):
        kind(f"{vg}/nosuch")
    monkeypatch.chdir(tmp_path)
    Path(vg).mkdir()
    Path(thin).write_bytes(b"a file")
    assert kind(thin) == "file", "a path that is there wins"
    assert kind(f"lvm:{thin}") == "lvm"


def test_a_thin_volume_as_plain_bytes(thin: str) -> None:
    ended = guest.program("qb-volread", "--raw", f"lvm:/dev/{thin}")
    assert ended.status == 0
    assert ended.stdout == PATTERN + bytes(7 * MiB) + PATTERN + bytes(7 * MiB)


def test_a_thick_volume(thick: str) -> None:
    stream = guest.volread(f"lvm:{thick}")
    assert stream.size == 4 * MiB
    assert stream.extents == [(0, 4 * MiB)]
    assert stream.data == PATTERN * 4


def test_sizes(thin: str, thick: str) -> None:
    assert guest.program("qb-volread", "--size", f"lvm:{thin}").stdout == b"%d\t%d\n" % (16 * MiB, 2 * MiB)
    assert guest.program("qb-volread", "--size", f"lvm:{thick}").stdout == b"%d\t%d\n" % (4 * MiB, 4 * MiB)
