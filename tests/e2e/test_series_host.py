"""qb-backup create --series --host: nights of a host on which machines come and go, and of machines that fail."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from devices import file_system
from hostdirs import Machine, images, inventory, noise, unfinished
from nights import CREATE, SECRET, Nights
from running import OF_FILE, Running
from support import bash

FAILING = OF_FILE + '[ "$QB_NAME" != vm2/root.img ] || { cat >/dev/null; exit 3; }\nexec gzip -c\n'

LOST = "the archive is complete but for 1 file that failed when saved: vm2/root.img"


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights(tmp_path)


MAIL, WEB = (sorted(f"vm{number}/{volume}.img" for volume in ("root", "private")) for number in (1, 2))
NEW = ["vm3/private.img"]


def test_machines_come_and_go(nights: Nights) -> None:
    """One is added before the others, one is removed and added again, the host lists them in another order."""
    assert nights.night("mail", "web") is None
    for name in ("new", "other"):  # each has one volume
        nights.machines[name] = Machine(name, "AppVM", data={"private": noise(name)})
    nights.change("mail", "root", 100_000, b"second")
    nights.change("web", "root", 5, b"second")
    assert nights.night("new", "web", "mail") == nights.header("0.qb")["id"]
    assert nights.names("1.qb") == [*MAIL, *WEB, *NEW]
    assert nights.increments("1.qb") == [*MAIL, *WEB]
    assert os.path.getsize(nights.path / "1.qb") < os.path.getsize(nights.path / "0.qb") - 200_000
    nights.change("web", "private", 0, b"third")
    assert nights.night("web", "new") == nights.header("1.qb")["id"]
    assert nights.increments("2.qb") == nights.names("2.qb") == [*WEB, *NEW]
    nights.change("mail", "root", 3, b"fourth")
    nights.night("other", "mail", "web", "new")
    assert nights.names("3.qb") == [*MAIL, *WEB, *NEW, "vm4/private.img"]
    assert nights.increments("3.qb") == [*WEB, *NEW], "the base does not have mail"
    for count in (2, 4):
        assert nights.restored(nights.files()[:count]) == nights.states[count - 1]


def test_what_is_no_volume_is_whole(nights: Nights) -> None:
    nights.machines["mail"].files = {"firewall.xml": b"<first/>", "a.txt": b"a"}
    nights.night("mail")
    nights.machines["mail"].files = {"a.txt": b"a", "firewall.xml": b"<second/>"}
    nights.night("mail")
    assert nights.names("0.qb") == nights.names("1.qb") == [*MAIL, "vm1/a.txt", "vm1/firewall.xml"]
    assert nights.increments("1.qb") == MAIL
    text = f"cd {nights.path} && qb-unseal vm1/firewall.xml <1.qb | gzip -dc | qb-tarextract --raw vm1/firewall.xml"
    assert bash(text, **SECRET).stdout == b"<second/>"


def test_a_machine_that_fails_does_not_cost_the_night(nights: Nights) -> None:
    """The archive is a base. The volume that failed is whole in the next one, and the others are increments.

    Its index was complete when it failed. If its archive is the last one of a chain, its machine is not restored; if
    others follow, the last one has it completely.
    """
    nights.night("mail", "web")
    nights.change("web", "root", 7, b"second")
    nights.change("mail", "root", 7, b"second")
    nights.host("mail", "web")
    nights.states.append(images(nights.path / "A"))
    (nights.path / "run").mkdir()
    with Running(nights.path / "run", nights.path, **SECRET) as running:
        running.program("igzip", FAILING)
        process = running.start(f"exec {CREATE} --json -o 1.qb")
        stdout, stderr = process.communicate()
    assert process.returncode == 1, stderr
    assert [one["problem"] is None for one in json.loads(stdout)["domains"]] == [True, False]
    assert [row[1] for row in nights.listed()] == ["confirmed"] * 2
    folder = nights.path / "series/indexes" / str(nights.header("1.qb")["id"])
    assert sorted(path.name for path in folder.glob("*.index")) == [
        "vm1.private.img.index", "vm1.root.img.index", "vm2.private.img.index"
    ]  # fmt: skip
    nights.change("web", "private", 7, b"third")
    assert nights.night("mail", "web") == nights.header("1.qb")["id"]
    assert nights.increments("2.qb") == [*MAIL, "vm2/private.img"]
    (nights.path / "B").mkdir()
    text = f"cd {nights.path} && exec qb-backup restore -qy --host B"
    done = bash(f"{text} 0.qb 1.qb", **SECRET)
    assert done.returncode == 4, done.stderr
    second = {name: data for name, data in nights.states[1].items() if name.startswith("mail/")}
    assert images(nights.path / "B") == second and [*inventory(nights.path / "B")] == ["mail"]
    assert unfinished(nights.path / "B") == set()
    done = bash(f"{text} --rename mail=post 2.qb 0.qb 1.qb", **SECRET)
    assert (done.returncode, done.stderr.decode()) == (0, f"qb-unseal: warning: {LOST}\n")
    third = {name.replace("mail/", "post/"): data for name, data in nights.states[2].items()}
    assert images(nights.path / "B") == {**second, **third}


def test_a_machine_that_cannot_be_saved(nights: Nights) -> None:
    """It is not in the archive. The next night has it whole. Volumes of the command line have the same numbers."""
    nights.night("mail", "web")
    nights.host("mail", "web")
    os.unlink(nights.path / "A/web/root.img")
    done = nights.create()
    assert done.returncode == 1 and b"1 of 2 domains cannot be saved: web (" in done.stderr
    assert nights.names("1.qb") == nights.increments("1.qb") == MAIL
    assert nights.night("mail", "web") == nights.header("1.qb")["id"]
    assert nights.increments("2.qb") == MAIL
    assert nights.restored(nights.files()) == nights.states[2]
    os.unlink(nights.path / "A/web/root.img")
    before = nights.listed()
    assert nights.create("--strict").returncode == 1
    assert nights.listed() == before
    nights.change("web", "private", 1, b"second")
    nights.host("web")
    words = "--logn=10 --series=series -o c.qb web:private=A/web/private.img"
    done = bash(f"cd {nights.path} && qb-backup create -q {words}", **SECRET)
    assert (done.returncode, done.stderr) == (0, b"")
    assert nights.increments("c.qb") == ["vm2/private.img"]


def test_differential_store_and_standard_output(nights: Nights) -> None:
    nights.night("mail")
    full = nights.header("0.qb")["id"]
    nights.change("mail", "root", 7, b"second")
    assert nights.night("mail") == full
    nights.change("mail", "root", 9000, b"third")
    nights.host("mail")
    words = "--differential --json --store 'qb-store 2.qb'"
    done = bash(f"cd {nights.path} && {CREATE} {words}", **SECRET)
    assert (done.returncode, done.stderr) == (0, b"")
    assert nights.header("2.qb") == {"base": full, "id": json.loads(done.stdout)["backup_id"]}
    assert nights.restored(["2.qb", "0.qb"]) == images(nights.path / "A")
    done = bash(f"cd {nights.path} && {CREATE} --full >3.qb", **SECRET)
    assert (done.returncode, done.stderr) == (0, b"")
    assert nights.header("3.qb")["base"] is None
    assert [row[1] for row in nights.listed()] == ["confirmed"] * 3 + ["pending"]


def test_snapshots_of_a_machine(tmp_path: Path) -> None:
    """They are taken when the machine is reached, and only then it is known what is read."""
    with file_system(tmp_path, "xfs", 512 << 20) as place:
        nights = Nights(place)
        nights.night("mail", "web")
        nights.change("web", "root", 9000, b"second")
        nights.host("mail", "web")
        done = nights.create("--json")
        assert (done.returncode, done.stderr) == (0, b"")
        assert [one["state"] for one in json.loads(done.stdout)["domains"]] == ["snapshot", "snapshot"]
        assert nights.increments("1.qb") == nights.names("1.qb") == [*MAIL, *WEB]
        assert nights.restored(nights.files()) == nights.states[1]
        assert {path.name for path in (place / "A").rglob("*.img*")} == {"root.img", "private.img"}


def test_a_dry_run_does_not_touch_the_series(nights: Nights) -> None:
    nights.host("mail")
    done = bash(f"cd {nights.path} && {CREATE} -n", **SECRET)
    assert done.returncode == 0 and b"mail" in done.stdout
    assert not (nights.path / "series").exists()


def test_a_host_without_checkpoints(nights: Nights) -> None:
    nights.host("mail")
    done = nights.create("--checkpoints")
    assert (done.returncode, done.stderr) == (2, b"qb-backup: error: --checkpoints: the host A makes no checkpoints\n")
    assert not (nights.path / "series").exists()


def test_each_has_no_series(nights: Nights) -> None:
    nights.host("mail")
    done = bash(f"cd {nights.path} && {CREATE} --each -o .", **SECRET)
    assert done.returncode == 2
    assert done.stderr.startswith(b"qb-backup: error: --series does not go with --each\nhint: ")
