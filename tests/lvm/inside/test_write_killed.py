"""Runs that were killed: the next one brings to an end what they have begun, and never what another one does."""

from __future__ import annotations

import os
from pathlib import Path

from lvm import guest
from lvm.filling import Fed, attributes, good, holds, stream, volwrite
from lvm.guest import MiB

from qbtools.volumes.marks import Mark

PATTERN = os.urandom(MiB)
SIZE = 8 * MiB


def ours(vg: str) -> set[str]:
    return {name for name in guest.volumes(vg) if name.startswith("qbtools_")}


def test_killed_while_it_is_filled(vg: str) -> None:
    """What it has made is marked, and goes; what a living one makes stays, and what only bears the mark."""
    whole = stream(SIZE, {0: PATTERN * 4})
    with Fed(vg, "--create", f"lvm:{vg}/pool/killed") as killed:
        left = killed.begin(whole[:MiB]).name.removeprefix(f"{vg}-")
        mark = Mark.of(killed.pid)
        killed.kill()
        killed.wait()
    assert attributes(f"{vg}/{left}", "lv_tags") == [str(mark)]
    kept = {"qbtools_0123456789abcde": Mark.own(), "qbtools_mine": mark}
    for name, owner in kept.items():
        guest.lvm("lvcreate", "-qq", "-y", "-an", "-l1", "--addtag", str(owner), "-n", name, vg)
    assert ours(vg) == {left, *kept}
    good(volwrite("--create", f"lvm:{vg}/pool/next", data=stream(SIZE, {})))
    assert ours(vg) == set(kept)
    guest.remove(f"{vg}/next", *(f"{vg}/{name}" for name in kept))


def killed_at(vg: str, tmp_path: Path, rename: int) -> None:
    """Replaces VG/old by a run that is killed when lvm has renamed so many volumes."""
    guest.write(guest.thin(f"{vg}/old", SIZE), 0, PATTERN)
    script = tmp_path / "lvrename"
    script.write_text(
        f'#!/bin/bash\n/sbin/lvrename "$@" || exit\necho x >>{tmp_path}/count\n'
        f"[ $(wc -l <{tmp_path}/count) != {rename} ] || kill -KILL $PPID\n"
    )
    script.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    ended = volwrite("--overwrite", f"{vg}/old", data=stream(SIZE, {MiB: PATTERN}), PATH=path)
    assert ended.status == 137


def test_killed_between_the_names(vg: str, tmp_path: Path) -> None:
    """The old one is back whatever comes next, a reader too."""
    killed_at(vg, tmp_path, 1)
    assert "old" not in guest.volumes(vg)
    assert len(ours(vg)) == 2
    found = guest.volread(f"{vg}/old")
    assert (found.extents, found.data) == ([(0, MiB)], PATTERN)
    assert not ours(vg)
    assert attributes(f"{vg}/old", "lv_tags,lv_active") == ["", "active"]
    guest.remove(f"{vg}/old")


def test_killed_with_the_new_name_given(vg: str, tmp_path: Path) -> None:
    killed_at(vg, tmp_path, 2)
    assert len(ours(vg)) == 1
    assert guest.program("qb-snapshot", "clean").status == 0
    assert not ours(vg)
    assert attributes(f"{vg}/old", "lv_tags,lv_active") == ["", "active"]
    assert holds(Path(f"/dev/{vg}/old"), SIZE, {MiB: PATTERN})
    guest.remove(f"{vg}/old")
