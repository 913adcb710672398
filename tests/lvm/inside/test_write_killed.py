"""Runs that were killed: the next one brings to an end what they have begun, and never what another one does."""

from __future__ import annotations

import os
from pathlib import Path

from lvm import guest
from lvm.filling import Fed, attributes, good, holds, stream, volwrite
from lvm.guest import MiB

PATTERN = os.urandom(MiB)
SIZE = 8 * MiB


def ours(vg: str) -> set[str]:
    return {name for name in guest.volumes(vg) if name.startswith("qbtools_")}


def test_killed_while_it_is_filled(vg: str) -> None:
    whole = stream(SIZE, {0: PATTERN * 4})
    with Fed(vg, "--create", f"lvm:{vg}/pool/living") as living:
        kept = living.begin(whole[:MiB]).name.removeprefix(f"{vg}-")
        with Fed(vg, "--create", f"lvm:{vg}/pool/killed") as killed:
            left = killed.begin(whole[:MiB]).name.removeprefix(f"{vg}-")
            killed.kill()
            killed.wait()
        assert ours(vg) == {kept, left}
        assert attributes(f"{vg}/{left}", "lv_tags") != attributes(f"{vg}/{kept}", "lv_tags")
        good(volwrite("--create", f"lvm:{vg}/pool/next", data=stream(SIZE, {})))
        assert ours(vg) == {kept}
        living.give(whole[MiB:])
        good(living.wait())
    assert not ours(vg)
    assert holds(Path(f"/dev/{vg}/living"), SIZE, {0: PATTERN * 4})
    assert "killed" not in guest.volumes(vg)
    guest.remove(f"{vg}/living", f"{vg}/next")


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


def test_another_took_the_name_of_what_was_put_away(vg: str, tmp_path: Path) -> None:
    killed_at(vg, tmp_path, 1)
    guest.thin(f"{vg}/old", SIZE)
    ended = volwrite("--create", f"lvm:{vg}/pool/next", data=stream(SIZE, {}))
    assert ended.status == 0
    assert f"was {vg}/old, but another volume has that name now" in ended.stderr
    (kept,) = ours(vg)
    guest.call("lvchange", "-qq", "-ay", f"{vg}/{kept}")
    assert guest.read(Path(f"/dev/{vg}/{kept}"), 0, MiB) == PATTERN, "nothing of anybody's is gone"
    guest.remove(f"{vg}/old", f"{vg}/{kept}", f"{vg}/next")
