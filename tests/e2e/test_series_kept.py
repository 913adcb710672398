"""qb-backup create --series on btrfs: a snapshot of each volume is kept, and the next run reads only what changed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from devices import file_system
from hostdirs import Machine, make_host
from running import Running, kill
from support import bash, run

SECRET = {"QB_PASSPHRASE_COMMAND": "echo series"}
MIB = 1 << 20

# A directory whose volumes are held as they are, or copied when they are held if HOST.copies exists.
HOLDING = """#!/bin/bash
set -e
case $2 in
    verbs) qb-host-dir "$@" && printf 'hold\\nrelease\\n' ;;
    hold)
        [ ! -e "$1.copies" ] || cp -r "$1" "$1.held"
        for volume in root private; do
            printf '%s\\tfile:%s\\n' "$volume" "$1$([ ! -e "$1.copies" ] || echo .held)/$3/$volume.img"
        done
        echo end
        ;;
    release) rm -rf "$1.held" ;;
    *) exec qb-host-dir "$@" ;;
esac
"""


class Series:
    """A series, and its volumes beside it."""

    words = "work:root=work.img 'work:private=other volume.img'"
    volumes: ClassVar = {"vm1/root.img": "work.img", "vm1/private.img": "other volume.img"}
    place = "."

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        self.make()
        for seed, name in enumerate(self.volumes.values()):
            (path / name).write_bytes(random.Random(seed).randbytes(MIB + 4096))

    def make(self) -> None:
        """Makes what is around the volumes."""

    def beside(self) -> list[Path]:
        """The snapshots."""
        return list((self.path / self.place).glob(".qbtools-*"))

    def change(self) -> None:
        for name in self.volumes.values():
            with (self.path / name).open("r+b") as file:
                file.seek(random.Random(self.number).randrange(MIB))
                file.write(b"changed %d" % self.number)

    def create(self, *words: str, status: int = 0) -> str:
        """Saves. Returns standard error."""
        command = f"qb-backup create --logn=10 --series=series -v {' '.join(words)} {self.words}"
        text = f"cd {self.path} && PATH=$PWD:$PATH exec {command}"
        done = bash(text, **SECRET)
        assert done.returncode == status, done
        return done.stderr.decode()

    def day(self, *words: str) -> tuple[str, str]:
        """Changes the volumes, and saves to a file. Returns the ID of the backup, and standard error."""
        self.change()
        self.number += 1
        said = self.create(*words, "-o", f"day{self.number}.qbk")
        return self.base(), said

    def pending(self) -> str:
        """Saves to standard output. Returns the ID of the backup."""
        self.change()
        self.number += 1
        self.create("--id-file id", f">day{self.number}.qbk")
        return (self.path / "id").read_text().strip()

    def confirm(self, backup_id: str) -> None:
        done = run("qb-series", "confirm", self.path / "series", backup_id)
        assert (done.returncode, done.stderr) == (0, b""), done

    def base(self) -> str:
        return str(json.loads(run("qb-series", "list", "--json", self.path / "series").stdout)["base"])

    def kept(self) -> list[str]:
        """The IDs of the backups whose snapshots exist; each has one of each volume."""
        listed = run("qb-snapshot", "list", self.path / self.place).stdout.decode().splitlines()
        rows = [line.split("\t") for line in listed]
        assert all(row[2] == "series" for row in rows)
        ids = sorted(row[1] for row in rows)
        assert ids[::2] == ids[1::2]
        assert sorted(os.listdir(self.path / "series/kept")) == ids[::2]
        assert len(ids) == len(self.beside())
        volumes = sorted(f"volume file:{self.path / name}" for name in self.volumes.values())
        for one in ids[::2]:  # the program that releases them may run in another directory
            lines = (self.path / "series/kept" / one).read_text().splitlines()
            assert sorted(line for line in lines if line.startswith("volume ")) == volumes
        return ids[::2]

    def stream(self, name: str, number: int) -> bytes:
        """What an archive has of a volume."""
        text = f"qb-unseal {name} <{self.path}/day{number}.qbk | gzip -dc | qb-tarextract"
        done = bash(text, **SECRET)
        assert done.returncode == 0, done
        return done.stdout

    def restored(self, name: str) -> bytes:
        """The volume in the archives of all days, merged by hand."""
        files = (self.path / f"day{number}.qbk" for number in range(1, self.number + 1))
        parts = " ".join(f"<(qb-unseal {name} <{file} | gzip -dc | qb-tarextract)" for file in files)
        done = bash(f"qb-merge {parts} | qb-volwrite --overwrite {self.path}/restored", **SECRET)
        assert (done.returncode, done.stderr) == (0, b""), done
        return (self.path / "restored").read_bytes()


class OfHost(Series):
    """The volumes are those of a machine of a host."""

    words = "--host=A"
    volumes: ClassVar = {"vm1/private.img": "A/work/private.img", "vm1/root.img": "A/work/root.img"}
    place = "A/work"

    def make(self) -> None:
        make_host(self.path / "A", [Machine("work", size=MIB + 4096)])


class OfHolding(OfHost):
    """The host holds the machine."""

    words = "--host=holding:$PWD/A"

    def make(self) -> None:
        super().make()
        program = self.path / "qb-host-holding"
        program.write_text(HOLDING)
        program.chmod(0o755)


@pytest.fixture
def series(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Series]:
    with file_system(tmp_path, "btrfs", 512 * MIB) as place:
        yield getattr(request, "param", Series)(place)


def of(*kinds: type[Series]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("series", kinds, indirect=True)


@of(Series, OfHost)
def test_the_archives_are_those_of_reading_everything(series: Series) -> None:
    base, said = series.day()
    assert "may have changed" not in said
    for number in (2, 3):
        shutil.copytree(series.path / "series/indexes" / base, series.path / f"base{number}")
        backup_id, said = series.day()
        assert said.count(f" bytes may have changed since {base}, only these are read\n") == 2
        assert "everything is read" not in said
        assert series.kept() == [backup_id]
        for name, file in series.volumes.items():
            index = name.replace("/", ".") + ".index"
            words = f"--base base{number}/{index} --index new{number} --overwrite --id {backup_id} --name {name}"
            done = bash(f"cd {series.path} && qb-volread '{file}' | qb-delta {words}")
            assert done.stdout == series.stream(name, number)
            kept = (series.path / "series/indexes" / backup_id / index).read_bytes()
            made = (series.path / f"new{number}").read_bytes()
            assert made[512:] == kept[512:] and made[:64] == kept[:64]
        base = backup_id
    for name, file in series.volumes.items():
        assert series.restored(name) == (series.path / file).read_bytes()
    for path in series.beside():
        assert path.stat().st_mode & 0o777 == 0o600


def test_clean_leaves_them_and_release_removes_them(series: Series) -> None:
    first, _ = series.day()
    assert run("qb-snapshot", "clean", series.path).returncode == 0
    assert series.kept() == [first]
    listed = json.loads(run("qb-snapshot", "list", "--json", series.path).stdout)
    assert [(one["backup_id"], one["pid"], one["dead"]) for one in listed] == [(first, None, False)] * 2
    assert run("qb-snapshot", "release", *(one["spec"] for one in listed)).returncode == 0
    second, said = series.day()
    assert said.count("everything is read: cannot use ") == 2
    assert said.count("No such file or directory\n") == 2
    assert series.kept() == [second]
    assert series.restored("vm1/root.img") == (series.path / "work.img").read_bytes()


def test_two_runs_that_are_not_confirmed_keep_theirs(series: Series) -> None:
    first, _ = series.day()
    pending = [series.pending() for _ in range(3)]
    assert series.kept() == sorted([first, *pending[1:]])
    series.confirm(pending[1])
    assert series.kept() == sorted(pending[1:])
    series.confirm(pending[0])  # it does not become the base
    assert series.kept() == sorted(pending[1:])
    series.confirm(pending[2])
    assert series.kept() == [pending[2]]
    assert series.day()[1].count("bytes may have changed") == 2


def test_no_keep(series: Series) -> None:
    series.day()
    second, said = series.day("--no-keep")
    assert said.count("bytes may have changed") == 2, "those of the base are used"
    assert series.kept() == []
    third, said = series.day()
    assert said.count("everything is read: no snapshot of its last state is kept\n") == 2
    assert series.kept() == [third] != [second]


@of(OfHolding)
def test_what_a_host_makes_for_a_run_is_not_kept(series: Series) -> None:
    series.day()
    second, said = series.day()
    assert said.count("bytes may have changed") == 2
    assert series.kept() == [second]
    (series.path / "A.copies").touch()
    series.day()
    assert series.kept() == []
    assert not (series.path / "A.held").exists()
    (series.path / "A.copies").unlink()
    last, said = series.day()
    assert said.count("everything is read: no snapshot of its last state is kept\n") == 2
    assert series.kept() == [last]
    assert series.restored("vm1/root.img") == (series.path / "A/work/root.img").read_bytes()


def test_what_fails_keeps_nothing(series: Series) -> None:
    first, _ = series.day()
    assert "error: --store" in series.create("--store", "'cat >/dev/null; false'", status=1)
    assert series.kept() == [first]
    series.create("-o", "missing/x", status=1)
    assert series.kept() == [first]


@pytest.mark.parametrize(
    ("series", "number"), [(Series, signal.SIGKILL), (OfHost, signal.SIGTERM)], indirect=["series"]
)
def test_killed(series: Series, tmp_path: Path, number: signal.Signals) -> None:
    """The run itself removes its snapshots, or the next one does."""
    first, _ = series.day()
    (tmp_path / "run").mkdir()
    with Running(tmp_path / "run", series.path, **SECRET) as running:
        running.hold_in("vm1/root.img", 5000)
        running.start(f"exec qb-backup create --logn=10 --series=series -q -o part.qbk {series.words}")
        running.hold()
        assert len(series.kept()) == 2
        kill(running.one("qb-run"), number)
        running.gone()
    if number != signal.SIGKILL:
        assert series.kept() == [first]
        return  # the next run finds what it finds after any other
    second, said = series.day()
    assert said.count("bytes may have changed") == 2
    assert series.kept() == [second]
    assert series.restored("vm1/private.img") == (series.path / series.volumes["vm1/private.img"]).read_bytes()


def test_a_snapshot_that_somebody_changed_is_not_used(series: Series) -> None:
    series.day()
    (path,) = (one for one in series.beside() if one.read_bytes() == (series.path / "work.img").read_bytes())
    with path.open("r+b") as file:
        file.seek(MIB // 2)
        file.write(b"of another program")
    _, said = series.day()
    assert said.count("everything is read: the snapshot file:") == said.count(" was changed\n") == 1
    assert said.count("bytes may have changed") == 1
    for name, file_name in series.volumes.items():
        assert series.restored(name) == (series.path / file_name).read_bytes()


def test_a_record_that_is_damaged(series: Series) -> None:
    first, _ = series.day()
    path = series.path / "series/kept" / first
    path.write_bytes(path.read_bytes()[:-10])
    _, said = series.day()
    assert f"warning: it is not known which snapshots {first} keeps: qb-snapshot list shows them\n" in said
    assert said.count("no snapshot of its last state is kept") == 2


def test_a_volume_that_moves_to_a_place_without_snapshots(series: Series, tmp_path: Path) -> None:
    series.day()
    (tmp_path / "elsewhere").mkdir()
    shutil.move(series.path / "work.img", tmp_path / "elsewhere/work.img")
    (series.path / "work.img").symlink_to(tmp_path / "elsewhere/work.img")
    _, said = series.day()
    assert said.count("everything is read: it is not read through a snapshot") == 1
    assert series.restored("vm1/root.img") == (series.path / "work.img").read_bytes()
    assert len(series.beside()) == 1
