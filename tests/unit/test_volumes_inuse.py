"""Every user of a block device is found and named."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from devices import loop, mounted
from support import need

from qbtools.errors import Refused
from qbtools.volumes import inuse
from qbtools.volumes.kind import TargetOptions
from qbtools.volumes.kinds.block import BlockTarget


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process ends while these tests search."""
    monkeypatch.setattr(inuse, "_LOOKS", 1)


@pytest.fixture()
def device(tmp_path: Path) -> Iterator[Path]:
    with (tmp_path / "disk").open("wb") as file:
        file.truncate(16 << 20)
    with loop(tmp_path / "disk", "--partscan") as found:
        yield found


def refusal(device: Path) -> str:
    """The message of a target that refuses the device; "" if it does not."""
    try:
        BlockTarget(str(device), TargetOptions(overwrite=True)).close()
    except Refused as error:
        return error.message
    return ""


def test_nobody_uses_it(device: Path) -> None:
    assert refusal(device) == ""


def test_mounted(device: Path, tmp_path: Path) -> None:
    need("mkfs.ext4")
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    with mounted(tmp_path / "place", device, "ext4") as place:
        assert refusal(device) == f"{device} is in use: it is mounted on {place}"


def test_mounted_if_the_file_system_has_its_own_device_number(tmp_path: Path) -> None:
    need("mkfs.btrfs")
    with (tmp_path / "big").open("wb") as file:
        file.truncate(256 << 20)
    with loop(tmp_path / "big") as device:
        subprocess.run(["mkfs.btrfs", "-q", device], check=True)
        with mounted(tmp_path / "place", device, "btrfs") as place:
            assert refusal(device) == f"{device} is in use: it is mounted on {place}"


def test_swap(device: Path) -> None:
    need("mkswap", "swapon", "swapoff")
    subprocess.run(["mkswap", device], check=True, capture_output=True)
    subprocess.run(["swapon", device], check=True)
    try:
        assert refusal(device) == f"{device} is in use: it is used as swap"
    finally:
        subprocess.run(["swapoff", device], check=True)


def test_claimed_by_a_program(device: Path) -> None:
    claim = os.open(device, os.O_RDONLY | os.O_EXCL)
    try:
        assert refusal(device) == f"{device} is in use: another program or the kernel has claimed it"
    finally:
        os.close(claim)


def test_open_in_another_process(device: Path) -> None:
    with device.open("rb") as file, subprocess.Popen(["sleep", "1000"], stdin=file) as sleeper:
        file.close()
        try:
            assert refusal(device) == f"{device} is in use: process {sleeper.pid} (sleep) has it open"
        finally:
            sleeper.kill()
    assert refusal(device) == ""


def test_open_in_this_process_too(device: Path) -> None:
    with device.open("rb"):
        assert f"process {os.getpid()} (" in refusal(device)


def test_below_a_loop_device(device: Path) -> None:
    with loop(device) as upper:
        assert refusal(device) == f"{device} is in use: {upper.name} is built on it"
        assert refusal(upper) == ""


def test_a_disk_and_its_partitions(device: Path) -> None:
    need("addpart")
    for number, start in ("1", "2048"), ("2", "10240"):
        subprocess.run(["addpart", device, number, start, "8192"], check=True)
    first, second = Path(f"{device}p1"), Path(f"{device}p2")
    for busy, refused in (first, {first, device}), (device, {device, first, second}):
        with busy.open("rb"):
            for each in device, first, second:
                assert ("has it open" in refusal(each)) == (each in refused), (busy, each)
        claim = os.open(busy, os.O_RDONLY | os.O_EXCL)
        try:
            for each in device, first, second:
                assert bool(refusal(each)) == (each in refused), (busy, each)
        finally:
            os.close(claim)


def test_given_to_a_machine_by_xen(device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = device.stat().st_rdev
    vbd = tmp_path / "xen" / "vbd-3-51712"
    vbd.mkdir(parents=True)
    (tmp_path / "xen" / "vif-3-0").mkdir()
    monkeypatch.setattr(inuse, "_XEN", str(tmp_path / "xen"))
    (vbd / "physical_device").write_text(f"{os.major(number):x}:{os.minor(number) + 1:x}\n")
    assert refusal(device) == ""
    (vbd / "physical_device").write_text(f"{os.major(number):x}:{os.minor(number):x}\n")
    assert refusal(device) == f"{device} is in use: a running machine has it (vbd-3-51712)"


def test_device_numbers_as_the_kernel_writes_them() -> None:
    assert inuse._number("254:16") == os.makedev(254, 16)
    assert inuse._number("ca:10", 16) == os.makedev(202, 16)
    assert [inuse._number(text) for text in ("", "7", "7:", ":7", "a:b")] == [-1] * 5


# --- those who may write ---


def writer_of(device: Path) -> str | None:
    return inuse.user(device.stat().st_rdev, -1, writing=True)


def test_only_writers_count_on_request(device: Path) -> None:
    for flags, counts in (os.O_RDONLY, False), (os.O_PATH, False), (os.O_WRONLY, True), (os.O_RDWR, True):
        fd = os.open(device, flags)
        try:
            assert bool(writer_of(device)) == counts, flags
        finally:
            os.close(fd)
    with loop(device, "--read-only"):
        assert writer_of(device) is None
    with loop(device) as upper:
        assert writer_of(device) == f"{upper.name} is built on it"


def test_a_machine_that_xen_lets_read_only(device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = device.stat().st_rdev
    vbd = tmp_path / "xen" / "vbd-3-51712"
    vbd.mkdir(parents=True)
    monkeypatch.setattr(inuse, "_XEN", str(tmp_path / "xen"))
    (vbd / "physical_device").write_text(f"{os.major(number):x}:{os.minor(number):x}\n")
    for mode, counts in ("r\n", False), ("w\n", True):
        (vbd / "mode").write_text(mode)
        assert bool(writer_of(device)) == counts
        assert inuse.user(number, -1) == "a running machine has it (vbd-3-51712)"


def test_writers_of_a_file(tmp_path: Path) -> None:
    path, other = tmp_path / "v", tmp_path / "w"
    for each in path, other:
        each.write_bytes(bytes(1 << 20))
    with path.open("rb"), other.open("r+b"):
        assert inuse.writer(path.stat(), -1) is None
    with path.open("r+b") as file:
        assert f"process {os.getpid()} (" in (inuse.writer(path.stat(), -1) or "")
        assert inuse.writer(path.stat(), file.fileno()) is None
    with loop(path) as device:
        assert inuse.writer(path.stat(), -1) == f"{device.name} is built on it"
    with loop(path, "--read-only"):
        assert inuse.writer(path.stat(), -1) is None


def test_only_opened_files_have_writers(tmp_path: Path) -> None:
    path = tmp_path / "v"
    path.write_bytes(bytes(1 << 20))
    found = path.stat().st_dev, path.stat().st_ino
    assert found not in inuse.opened()
    with path.open("r+b"):
        assert found in inuse.opened()
    with loop(path):
        assert found in inuse.opened()


def test_the_type_of_a_file_system() -> None:
    with open("/proc/self/stat", "rb") as file:  # noqa: PTH123
        assert inuse.file_system(file.fileno()) == "proc"
    read, write = os.pipe()
    try:
        assert inuse.file_system(read) == "", "it is mounted nowhere"
    finally:
        os.close(read)
        os.close(write)


def test_what_is_written_to_a_device_is_counted(device: Path) -> None:
    number = device.stat().st_rdev
    before = inuse.written(number)
    assert before is not None
    fd = os.open(device, os.O_RDWR)
    try:
        os.pread(fd, 4096, 0)
        assert inuse.written(number) == before
        os.pwrite(fd, b"x" * 4096, 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    after = inuse.written(number)
    assert after is not None and after != before
    statistics = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/queue/iostats")
    statistics.write_text("0")
    try:
        assert inuse.written(number) is None, "nothing is counted"
    finally:
        statistics.write_text("1")
