"""Thin volumes that are made, and replaced."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from lvm import guest
from lvm.filling import Fed, attributes, good, holds, stream, temporary, used, volwrite
from lvm.guest import MiB

from qbtools.errors import Refused
from qbtools.volumes import inuse, locate
from qbtools.volumes.kind import TargetOptions

PATTERN = os.urandom(MiB)
SIZE = 12 * MiB
PIECES = {0: PATTERN, 7 * MiB + 512: PATTERN[:1024], SIZE - 512: PATTERN[:512]}


@pytest.fixture(scope="module")
def old(vg: str) -> Iterator[str]:
    """A volume that all attempts to replace it leave as it is: OLD."""
    guest.write(guest.thin(f"{vg}/old", SIZE), 0, PATTERN)
    yield f"{vg}/old"
    guest.remove(f"{vg}/old")


OLD = {0: PATTERN}


@pytest.fixture(scope="module")
def base(vg: str, old: str) -> set[str]:
    """What is in the group before the tests of this module."""
    return guest.volumes(vg)


@pytest.fixture(autouse=True)
def clean(vg: str, base: set[str]) -> Iterator[None]:
    """Whatever a test leaves under a name of its own is removed; nothing of ours may be left."""
    yield
    left = guest.volumes(vg) - base
    if left:
        guest.remove(*(f"{vg}/{name}" for name in left))
    assert not [name for name in left if name.startswith("qbtools")]


def test_a_new_volume_takes_room_for_its_data_only(vg: str) -> None:
    """Neither for holes, nor for zeros that come as data, nor for what is beyond its size in the last extent."""
    before = used(f"{vg}/pool")
    pieces = {MiB: PATTERN + bytes(5 * MiB) + PATTERN, 8 * MiB + 512: PATTERN[:513]}
    good(volwrite("--create", "--verify", f"lvm:{vg}/pool/new-one", data=stream(8 * MiB + 512 + 513, pieces)))
    assert used(f"{vg}/pool") <= before + 1
    assert attributes(f"{vg}/new-one", "lv_tags,pool_lv,lv_active,lv_permissions") == [
        "",
        "pool",
        "active",
        "writeable",
    ]
    assert holds(Path(f"/dev/{vg}/new-one"), SIZE, pieces)


def test_a_terabyte_without_data_is_made_in_no_time(vg: str) -> None:
    size = 1 << 40
    good(volwrite("--create", f"lvm:{vg}/pool/huge", data=stream(size, {0: PATTERN, size - 4096: PATTERN[:4096]})))
    device = Path(f"/dev/{vg}/huge")
    assert attributes(f"{vg}/huge", "lv_size") == [str(size)]
    assert guest.read(device, 0, 2 * MiB) == PATTERN + bytes(MiB)
    assert guest.read(device, size - MiB, MiB) == bytes(MiB - 4096) + PATTERN[:4096]


def test_an_old_volume_is_replaced_with_all_that_it_was(vg: str) -> None:
    """Its size too."""
    device = guest.thin(f"{vg}/replaced", SIZE)
    guest.write(device, 8 * MiB, PATTERN)
    guest.lvm("lvchange", "-qq", "--addtag", "mine", "--addtag", "yours", "-pr", "-ky", f"{vg}/replaced")
    fields = "lv_uuid,lv_tags,pool_lv,lv_active,lv_permissions,lv_skip_activation,lv_size"
    before, room = attributes(f"{vg}/replaced", fields), used(f"{vg}/pool")
    good(volwrite("--overwrite", device, data=stream(SIZE - 5 * MiB, {0: PATTERN})))
    after = attributes(f"{vg}/replaced", fields)
    assert (after[1:], after[0] == before[0]) == (before[1:], False)
    assert used(f"{vg}/pool") <= room + 1
    assert holds(device, SIZE, {0: PATTERN})


def test_it_grows_and_shrinks_only_where_that_is_allowed(vg: str) -> None:
    """And is active afterwards if it was."""
    device = guest.thin(f"{vg}/resized", 8 * MiB)
    guest.lvm("lvchange", "-qq", "-an", f"{vg}/resized")
    good(volwrite("--overwrite", f"lvm:{vg}/pool/resized", data=stream(SIZE, PIECES)))
    assert attributes(f"{vg}/resized", "lv_active") == [""]
    guest.lvm("lvchange", "-qq", "-ay", f"{vg}/resized")
    assert holds(device, SIZE, PIECES)
    data = stream(4 * MiB + 512, {512: PATTERN})
    ended = volwrite("--overwrite", "--shrink", f"lvm:{vg}/resized", data=data)
    assert ended.status == 0
    assert ended.stderr == f"qb-volwrite: warning: {vg}/resized: shrinking it from {SIZE} to {8 * MiB} bytes\n"
    assert holds(device, 8 * MiB, {512: PATTERN})


def test_plain_bytes_need_a_size(vg: str) -> None:
    with Fed(vg, "--raw", "--create", f"lvm:{vg}/pool/new") as running:
        ended = running.wait()
    assert (ended.status, "before the size of the volume is known" in ended.stderr) == (2, True)
    good(volwrite("--raw", "--create", f"lvm:{vg}/pool/new", data=PATTERN * 5))
    assert holds(Path(f"/dev/{vg}/new"), 8 * MiB, {0: PATTERN * 5})


def test_a_volume_in_use_is_refused(vg: str, old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the beginning on, whoever it is, and at the end."""
    device, options = Path(f"/dev/{old}"), TargetOptions(overwrite=True)
    with device.open("rb"):
        with pytest.raises(Refused, match=f"^{old} is in use: process {os.getpid()} "):
            locate.open_target(f"lvm:{old}", options)
        with monkeypatch.context() as patch:
            patch.setattr(inuse, "user", lambda _device, _own: None)
            with pytest.raises(Refused, match=f"^{old} is in use: the kernel, or a process that this program"):
                locate.open_target(f"lvm:{old}", options)
    with Fed(vg, "--overwrite", f"lvm:{old}") as running:
        whole = stream(SIZE, PIECES)
        running.begin(whole[:MiB])
        with device.open("rb"):
            running.give(whole[MiB:])
            ended = running.wait()
    assert (ended.status, f"{old} is in use: " in ended.stderr) == (5, True)
    assert attributes(old, "lv_tags,lv_active") == ["", "active"]
    assert holds(device, SIZE, OLD)


def test_a_volume_of_a_running_machine_is_refused(old: str) -> None:
    guest.lvm("lvcreate", "-qq", "-kn", "-s", "-n", "old-snap", old)
    with pytest.raises(Refused, match=f"^{old} is in use: its machine writes to {old}-snap$"):
        locate.open_target(f"lvm:{old}", TargetOptions(overwrite=True))


def test_what_is_not_whole_is_removed_and_the_old_stays(vg: str, old: str) -> None:
    room, whole = used(f"{vg}/pool"), stream(SIZE, {MiB: PATTERN * 6})
    with Fed(vg, "--overwrite", f"lvm:{old}") as running:
        made = running.begin(whole[: 4 * MiB])
        running.kill(signal.SIGTERM)
        assert running.wait().status == 143
    assert not made.exists()
    assert used(f"{vg}/pool") == room
    assert holds(Path(f"/dev/{old}"), SIZE, OLD)


def test_a_name_that_appears_meanwhile(vg: str) -> None:
    whole = stream(SIZE, {0: PATTERN})
    with Fed(vg, "--create", f"lvm:{vg}/pool/new") as running:
        running.begin(whole[:1024])
        guest.thick(f"{vg}/new", 4 * MiB)
        running.give(whole[1024:])
        ended = running.wait()
    assert (ended.status, f"{vg}/new was created meanwhile" in ended.stderr) == (5, True)
    assert attributes(f"{vg}/new", "lv_layout") == ["linear"], "it is that of another"


@pytest.mark.parametrize("fault", ["error", "zero"])
def test_a_device_that_breaks_in_the_middle(vg: str, old: str, fault: str) -> None:
    """Gives errors; loses what is written, which only reading back tells."""
    whole = stream(SIZE, {0: PATTERN * 4})
    with Fed(vg, "--overwrite", "--verify", f"lvm:{old}") as running:
        made = running.begin(whole[:1024])
        guest.dmsetup("load", made.name, f"0 {SIZE // 512} {fault}")
        guest.dmsetup("resume", made.name)  # which suspends it first
        running.give(whole[1024:])
        ended = running.wait()
    assert ended.status == 1
    expected = f"cannot write to {old}: " if fault == "error" else f"{old} differs from the data that was written to it"
    assert expected in ended.stderr
    assert not temporary(vg)
    assert holds(Path(f"/dev/{old}"), SIZE, OLD)
