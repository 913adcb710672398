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

from qbtools.errors import QbError
from qbtools.volumes import locate
from qbtools.volumes.kind import TargetOptions

PATTERN = os.urandom(MiB)
SIZE = 40 * MiB
PIECES = {0: PATTERN, 17 * MiB + 512: PATTERN[:1024], SIZE - 512: PATTERN[:512]}


@pytest.fixture(scope="module")
def base(vg: str) -> set[str]:
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
    pieces = {MiB: PATTERN + bytes(20 * MiB) + PATTERN, 30 * MiB + 512: PATTERN[:512]}
    good(volwrite("--create", "--verify", f"lvm:{vg}/pool/new-one", data=stream(SIZE - 1000 * 512, pieces)))
    assert used(f"{vg}/pool") <= before + 2
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


def test_a_clone_through_a_pipe(vg: str) -> None:
    device = guest.thin(f"{vg}/a", SIZE)
    guest.write(device, 4 * MiB, PATTERN)
    before = used(f"{vg}/pool")
    good(volwrite("--create", f"{vg}/pool/b", data=guest.program("qb-volread", f"{vg}/a").stdout))
    assert used(f"{vg}/pool") <= before + 2
    assert holds(Path(f"/dev/{vg}/b"), SIZE, {4 * MiB: PATTERN})


def test_an_old_volume_is_replaced_with_all_that_it_was(vg: str) -> None:
    device = guest.thin(f"{vg}/old", SIZE)
    guest.write(device, 8 * MiB, PATTERN)
    guest.call("lvchange", "-qq", "--addtag", "mine", "--addtag", "yours", "-pr", "-ky", f"{vg}/old")
    fields = "lv_uuid,lv_tags,pool_lv,lv_active,lv_permissions,lv_skip_activation,lv_size"
    before, room = attributes(f"{vg}/old", fields), used(f"{vg}/pool")
    good(volwrite("--overwrite", device, data=stream(SIZE, PIECES)))
    after = attributes(f"{vg}/old", fields)
    assert (after[1:], after[0] == before[0]) == (before[1:], False)
    assert used(f"{vg}/pool") <= room + 2
    assert holds(device, SIZE, PIECES)


def test_a_volume_that_is_not_active_stays_so(vg: str) -> None:
    device = guest.thin(f"{vg}/old", SIZE)
    guest.call("lvchange", "-qq", "-an", f"{vg}/old")
    good(volwrite("--overwrite", f"lvm:{vg}/pool/old", data=stream(SIZE, PIECES)))
    assert attributes(f"{vg}/old", "lv_active") == [""]
    guest.call("lvchange", "-qq", "-ay", f"{vg}/old")
    assert holds(device, SIZE, PIECES)


def test_it_grows_and_shrinks_only_where_that_is_allowed(vg: str) -> None:
    device = guest.thin(f"{vg}/old", 8 * MiB)
    guest.write(device, 0, PATTERN * 8)
    good(volwrite("--overwrite", f"{vg}/old", data=stream(SIZE, PIECES)))
    assert holds(device, SIZE, PIECES)
    good(volwrite("--overwrite", f"{vg}/old", data=stream(4 * MiB, {0: PATTERN})))
    assert holds(device, SIZE, {0: PATTERN}), "it keeps its size"
    ended = volwrite("--overwrite", "--shrink", f"{vg}/old", data=stream(4 * MiB + 512, {512: PATTERN}))
    assert ended.status == 0
    assert ended.stderr == f"qb-volwrite: warning: {vg}/old: shrinking it from {SIZE} to {8 * MiB} bytes\n"
    assert holds(device, 8 * MiB, {512: PATTERN})


def test_plain_bytes_need_a_size(vg: str) -> None:
    with Fed(vg, "--raw", "--create", f"lvm:{vg}/pool/new") as running:
        ended = running.wait()
    assert (ended.status, "before the size of the volume is known" in ended.stderr) == (2, True)
    good(volwrite("--raw", "--create", f"lvm:{vg}/pool/new", data=PATTERN * 5))
    assert holds(Path(f"/dev/{vg}/new"), 8 * MiB, {0: PATTERN * 5})


def test_a_volume_in_use_is_refused(vg: str) -> None:
    """From the beginning on, and at the end."""
    device = guest.thin(f"{vg}/old", SIZE)
    guest.write(device, 0, PATTERN)
    with device.open("rb"):
        ended = volwrite("--overwrite", f"{vg}/old", data=stream(SIZE, PIECES))
    assert (ended.status, f"{vg}/old is in use: process {os.getpid()}" in ended.stderr) == (5, True)
    with Fed(vg, "--overwrite", f"{vg}/old") as running:
        whole = stream(SIZE, PIECES)
        running.begin(whole[:MiB])
        with device.open("rb"):
            running.give(whole[MiB:])
            ended = running.wait()
    assert (ended.status, f"{vg}/old is in use: " in ended.stderr) == (5, True)
    assert attributes(f"{vg}/old", "lv_tags,lv_active") == ["", "active"]
    assert holds(device, SIZE, {0: PATTERN})


def test_a_volume_of_a_running_machine_is_refused(vg: str) -> None:
    guest.thin(f"{vg}/vm-w-private", SIZE)
    guest.call("lvcreate", "-qq", "-kn", "-s", "-n", "vm-w-private-snap", f"{vg}/vm-w-private")
    ended = volwrite("--overwrite", f"{vg}/vm-w-private", data=stream(SIZE, PIECES))
    assert (ended.status, "its machine writes to" in ended.stderr) == (5, True)


def test_targets_that_cannot_be(vg: str) -> None:
    """All of this is said before anything is made."""
    guest.thick(f"{vg}/thick", 4 * MiB)
    for word, status, text in [
        (f"lvm:{vg}/pool/snapshot1", 2, "names that begin with snapshot are lvm's own"),
        (f"lvm:{vg}/pool/a_tmeta", 2, "names with _tmeta in them are lvm's own"),
        (f"lvm:{vg}/x_rimage_0", 2, "names with _rimage in them are lvm's own"),
        (f"lvm:{vg}/pool/{'a-' * 41}{'a' * 10}", 2, f"it is too long for a volume in {vg}"),
        (f"lvm:{vg}/pool/qbtools_0123456789abcde", 2, "such names are given to volumes that are not whole yet"),
        (f"lvm:{vg}/pool/..", 2, "it is a directory's"),
        (f"lvm:{vg}/nopool/a", 1, f"there is no thin pool nopool in {vg}"),
        ("lvm:novg/pool/a", 1, "novg"),
        (f"lvm:{vg}/pool", 2, "is a pool"),
        ("lvm:a", 2, "a is no logical volume"),
        (f"lvm:{vg}/pool/thick", 5, "exists, but not in the pool pool"),
    ]:
        with pytest.raises(QbError) as raised:
            locate.open_target(word, TargetOptions(create=True, overwrite=True))
        assert (raised.value.status, text in raised.value.message) == (status, True), (word, raised.value.message)
    for word, options, status, text in [
        (f"lvm:{vg}/pool/new", TargetOptions(overwrite=True), 1, f"there is no logical volume new in {vg}"),
        (f"lvm:{vg}/pool/thick", TargetOptions(create=True), 5, "exists"),
    ]:
        with pytest.raises(QbError) as raised:
            locate.open_target(word, options)
        assert (raised.value.status, text in raised.value.message) == (status, True), (word, raised.value.message)


def test_what_is_not_whole_is_removed_and_the_old_stays(vg: str) -> None:
    device = guest.thin(f"{vg}/old", SIZE)
    guest.write(device, 0, PATTERN)
    room, whole = used(f"{vg}/pool"), stream(SIZE, {MiB: PATTERN * 8})
    with Fed(vg, "--overwrite", f"{vg}/old") as running:
        made = running.begin(whole[: 4 * MiB])
        running.kill(signal.SIGTERM)
        assert running.wait().status == 143
    assert not made.exists()
    assert used(f"{vg}/pool") == room
    assert holds(device, SIZE, {0: PATTERN})


def test_of_two_that_make_a_volume_one_is_refused(vg: str) -> None:
    one, two = stream(SIZE, {0: PATTERN}), stream(SIZE, {MiB: PATTERN})
    with Fed(vg, "--create", f"lvm:{vg}/pool/both") as first, Fed(vg, "--create", f"lvm:{vg}/pool/both") as second:
        first.begin(one[:1024])
        second.begin(two[:1024])
        first.give(one[1024:])
        second.give(two[1024:])
        statuses = first.wait().status, second.wait().status
    assert sorted(statuses) == [0, 5]
    assert holds(Path(f"/dev/{vg}/both"), SIZE, {statuses.index(0) * MiB: PATTERN})


@pytest.mark.parametrize("fault", ["error", "zero"])
def test_a_device_that_breaks_in_the_middle(vg: str, fault: str) -> None:
    """Gives errors; loses what is written, which only reading back tells."""
    device = guest.thin(f"{vg}/old", SIZE)
    guest.write(device, 0, PATTERN)
    whole = stream(SIZE, {0: PATTERN * 4})
    with Fed(vg, "--overwrite", "--verify", f"{vg}/old") as running:
        made = running.begin(whole[:1024])
        guest.dmsetup("load", made.name, f"0 {SIZE // 512} {fault}")
        guest.dmsetup("resume", made.name)  # which suspends it first
        running.give(whole[1024:])
        ended = running.wait()
    assert ended.status == 1
    expected = f"cannot write to {vg}/old: " if fault == "error" else f"{vg}/old does not hold what was written to it"
    assert expected in ended.stderr
    assert not temporary(vg)
    assert holds(device, SIZE, {0: PATTERN})
