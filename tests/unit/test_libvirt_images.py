"""The images that a restore to libvirt makes beside those of others."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from qbtools.errors import Failed, Refused
from qbtools.hosts.libvirt.facts import Facts
from qbtools.hosts.libvirt.images import Images
from qbtools.hosts.libvirt.poolvolumes import PoolVolumes
from qbtools.hosts.libvirt.virsh import Virsh
from qbtools.volumes.marks import Mark

OLD = Mark.own()._replace(start=1)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    (tmp_path / "pool").mkdir()
    (tmp_path / "state").mkdir()
    return tmp_path / "pool"


def images(pool: Path, *names: str) -> Images:
    paths = {tuple(name.split(":")): str(pool / f"{name.replace(':', '-')}.img") for name in names}
    virsh = Virsh("test:///default")
    return Images(str(pool.parent / "state"), paths, PoolVolumes(virsh, Facts(virsh)))  # type: ignore[arg-type]


def names(pool: Path) -> list[str]:
    return sorted(path.name for path in pool.iterdir())


def test_made_and_removed(pool: Path) -> None:
    found = images(pool, "work:vda", "work:vdb")
    found.make("work", [("vda", 4096), ("vdb", 0)], OLD)
    assert names(pool) == ["work-vda.img", "work-vdb.img"]
    assert (pool / "work-vda.img").stat().st_size == 4096
    assert found.strays() == [("work", OLD)]
    found.drop("work")
    assert names(pool) == [] and found.strays() == []


def test_a_pool_without_hard_links(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as exFAT, where no rename refuses to replace a file either."""

    def refuse(*_names: object, **_where: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_name, **_more: object())
    found = images(pool, "work:vda", "work:vdb")
    (pool / "work-vdb.img").write_bytes(b"theirs")
    monkeypatch.setattr(found, "check", lambda *_: None)
    with pytest.raises(Failed, match=r"cannot create .*work-vdb.img: File exists"):
        found.make("work", [("vda", 4096), ("vdb", 4096)], OLD)
    assert (pool / "work-vda.img").stat().st_size == 4096
    found.drop("work")
    assert names(pool) == ["work-vdb.img"] and (pool / "work-vdb.img").read_bytes() == b"theirs"


def test_without_its_record_nothing_is_removed(pool: Path) -> None:
    found = images(pool, "work:vda")
    found.make("work", [("vda", 4096)], OLD)
    found.unmark("work", ["vda"])
    found.drop("work")
    assert names(pool) == ["work-vda.img"]
    found.mark("work", ["vda"], OLD)
    found.drop("work")
    assert names(pool) == []


def test_a_file_of_somebody_else(pool: Path) -> None:
    found = images(pool, "work:vda", "work:vdb")
    (pool / "work-vdb.img").write_bytes(b"theirs")
    with pytest.raises(Refused, match=r"work-vdb.img already exists"):
        found.make("work", [("vda", 4096), ("vdb", 4096)], OLD)
    assert names(pool) == ["work-vdb.img"] and found.strays() == []


def test_a_file_that_has_taken_the_name(pool: Path) -> None:
    found = images(pool, "work:vda", "work:vdb")
    found.make("work", [("vda", 4096), ("vdb", 4096)], OLD)
    (pool / "new").write_bytes(b"theirs")
    os.rename(pool / "new", pool / "work-vda.img")
    found.drop("work")
    assert (pool / "work-vda.img").read_bytes() == b"theirs" and names(pool) == ["work-vda.img"]


def test_a_record_that_was_cut_off(pool: Path) -> None:
    found = images(pool, "work:vda")
    found.make("work", [("vda", 4096)], OLD)
    record = pool.parent / "state" / f"work:{OLD}"
    record.write_bytes(record.read_bytes()[:-1])
    found.drop("work")
    assert names(pool) == ["work-vda.img"]


def test_one_name_is_the_beginning_of_another(pool: Path) -> None:
    found = images(pool, "a:vda", "a-b:vda")
    found.make("a", [("vda", 1)], OLD)
    found.make("a-b", [("vda", 1)], OLD)
    found.drop("a")
    assert names(pool) == ["a-b-vda.img"]


def test_what_cannot_be_made(pool: Path) -> None:
    with pytest.raises(Refused, match="only printable ASCII"):
        images(pool / "ä", "work:vda").check("work", ["vda"])
    with pytest.raises(Failed, match="cannot write to"):
        images(pool / "none", "work:vda").check("work", ["vda"])
