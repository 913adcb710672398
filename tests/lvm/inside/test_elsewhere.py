"""Volumes that go to another host and to another pool. What moves them there, ssh and archives, is tested elsewhere."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from lvm import guest
from lvm.filling import good, holds, used, volwrite
from lvm.guest import MiB
from manual import examples

from qbtools.runs import creating, filling
from qbtools.volumes.kind import SourceOptions

PATTERN = os.urandom(MiB)
SIZE = 24 * MiB


@pytest.fixture(scope="module")
def vm1(vg: str) -> Iterator[str]:
    """A thin volume of 24 MiB with one MiB of data."""
    guest.write(guest.thin(f"{vg}/vm1", SIZE), 4 * MiB, PATTERN)
    yield f"{vg}/vm1"
    guest.remove(f"{vg}/vm1")


def test_a_clone_on_another_host(vg: str, vm1: str) -> None:
    """The two programs of the manual, one after the other, with their arguments. The clone is sparse."""
    text = examples("qbtools.7")["clone"].replace(" vg/", f" {vg}/").replace("lvm:vg/pool/vm1", f"lvm:{vg}/pool/clone")
    reading, writing = (shlex.split(words) for words in text.splitlines()[-1].split(" | ssh host "))
    before = used(f"{vg}/pool")
    ended = guest.program(*reading)
    good(ended._replace(stdout=b""))
    good(guest.program(*writing, data=ended.stdout))
    assert used(f"{vg}/pool") <= before + 2
    assert holds(Path(f"/dev/{vg}/clone"), SIZE, {4 * MiB: PATTERN})
    guest.remove(f"{vg}/clone")


def test_a_backup_of_a_volume_restored_into_a_pool(vg: str, vm1: str) -> None:
    """What qb-backup create and restore --pool have qb-volread and qb-volwrite do, without the archive between."""
    warnings: list[str] = []
    (saved,) = creating.of_words([f"w:private=lvm:{vm1}"], SourceOptions(warn=warnings.append)).files
    word = saved.source.split(":", 4)[4]
    assert (word, saved.source, saved.data) == (f"lvm:{vm1}", f"volume:{SIZE}::10%:lvm:{vm1}", MiB)
    target = filling.Where(None, f"lvm:{vg}/pool", {}, []).target("w", "private")
    assert target is not None and not warnings
    ended = guest.program("qb-volread", "-q", "--", word)
    good(ended._replace(stdout=b""))
    good(volwrite("--create", "--print-size", "--", target, data=ended.stdout))
    assert holds(Path(f"/dev/{vg}/w-private"), SIZE, {4 * MiB: PATTERN})
    guest.remove(f"{vg}/w-private")
