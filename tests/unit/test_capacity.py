"""How much memory and how many CPUs a process may use."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
from support import bash

from qbtools.commands.archive import capacity, sealoptions
from qbtools.commands.archive.keyoptions import Secret
from qbtools.commands.cli import Invocation
from qbtools.formats.containerhead import Parameters
from qbtools.formats.sealer import Settings

V1 = (
    "33 32 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 {top} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
)
V2 = "30 25 0:26 {top} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
OTHERS = "25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n26 25 0:5 / /proc rw - proc proc rw\n"
MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def root(place: Path, mounts: str, own: str, files: dict[str, str]) -> str:
    """A directory that is used as the / of a system."""
    (place / "proc/self").mkdir(parents=True)
    (place / "proc/self/mountinfo").write_text(OTHERS + mounts)
    (place / "proc/self/cgroup").write_text(own)
    for name, text in files.items():
        path = place / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return str(place)


@pytest.mark.parametrize(
    ("mounts", "own", "files", "mib"),
    [
        (V2, "0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": f"{90 << 20}", "memory.max": "max"}, 90),
        (V2, "0::/a/b\n", {"a/b/memory.max": f"{80 << 20}", "a/memory.max": f"{90 << 20}"}, 80),
        (V2, "0::/a\n", {"a/memory.max": f"{80 << 20}", "a/memory.high": f"{70 << 20}"}, 70),
        (V2, "0::/\n", {"memory.max": f"{60 << 20}"}, 60),
        (V2, "0::/../x\n", {"memory.max": f"{60 << 20}"}, 60),
        (V1, "4:memory:/a\n1:cpu,cpuacct:/\n", {"memory/a/memory.limit_in_bytes": f"{50 << 20}"}, 50),
        (V1, "4:memory:/docker/x\n", {"memory/memory.limit_in_bytes": f"{50 << 20}"}, 50),
        (V1, "4:memory:/a\n0::/b\n", {"memory/a/memory.limit_in_bytes": "9223372036854771712"}, None),
        (V2, "0::/a\n", {"a/memory.max": "max"}, None),
        ("", "0::/a\n", {}, None),
        (V2, "", {}, None),
    ],
)
@pytest.mark.parametrize("top", ["/", "/docker/x"])
def test_memory(top: str, mounts: str, own: str, files: dict[str, str], mib: int | None, tmp_path: Path) -> None:
    if top != "/":
        own = own.replace(":/", ":/docker/x/").replace("/docker/x/docker", "/docker")
    found = capacity.memory(root(tmp_path, mounts.format(top=top), own, files))
    assert found == (MACHINE if mib is None else mib << 20)


@pytest.mark.parametrize("limit", [resource.RLIMIT_AS, resource.RLIMIT_DATA])
def test_memory_by_a_limit(limit: int, tmp_path: Path) -> None:
    before = resource.getrlimit(limit)
    resource.setrlimit(limit, (MACHINE - 4096, before[1]))
    try:
        assert capacity.memory(str(tmp_path)) == MACHINE - 4096
    finally:
        resource.setrlimit(limit, before)


@pytest.mark.parametrize(
    ("mounts", "own", "files", "cpus"),
    [
        (V2, "0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 2),
        (V2, "0::/a\n", {"a/cpu.max": "50000 100000"}, 1),
        (V2, "0::/a\n", {"a/cpu.max": "max 100000"}, 8),
        (V1, "1:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"}, 3),
        (V1, "1:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, 8),
        ("", "", {}, 8),
    ],
)
def test_cpus(
    mounts: str, own: str, files: dict[str, str], cpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    assert capacity.cpus(root(tmp_path, mounts.format(top="/"), own, files)) == cpus


def test_the_default_number_of_jobs_respects_a_limit(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("secret\n")
    (tmp_path / "pw").chmod(0o600)
    words = "qb-seal -v --logn 17 --chunk-size 100M --opaque --passphrase-file pw a"
    done = bash(f"cd {tmp_path} && ulimit -v 1000000 && echo x | {words} >a.qb")
    assert done.returncode == 0
    assert done.stderr.endswith(b", 1 jobs\n")


def test_sealing_warns_if_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    call = Invocation("qb-seal", {"--jobs": None})
    monkeypatch.setattr(call, "warn", said.append)
    settings = Settings("x", 100 << 20, Parameters(17), 0)
    for size, warnings in ((330 << 20, 0), (327 << 20, 1)):
        monkeypatch.setattr(capacity, "memory", lambda size=size: size)
        assert sealoptions.sealing_jobs(call, settings) == 1
        assert len(said) == warnings
    assert said[0].startswith("sealing takes 328 MiB of memory, and this process may use 327 MiB: --chunk-size and")


def test_a_passphrase_is_wrapped_beside_the_reading_if_memory_permits(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    call = Invocation("qb-seal", {})
    monkeypatch.setattr(call, "warn", said.append)
    settings = Settings("x", 100 << 20, Parameters(10), 0)
    made: list[str] = []

    def wrap() -> list[tuple[str, bytes]]:
        made.append("")
        return [("qb-key.scrypt", b"wrapped")]

    for needed, size, early in ((256, 700, 0), (256, 600, 1), (256, 200, 1), (0, 200, 0)):
        monkeypatch.setattr(capacity, "memory", lambda size=size: size << 20)
        made.clear()
        later = sealoptions.wrap_in_time(call, Secret(b"x", wrap, needed << 20), settings, 1)
        assert len(made) == early
        assert later() == [("qb-key.scrypt", b"wrapped")]
        assert len(made) == 1
    assert said == ["wrapping the passphrase takes 256 MiB of memory, and this process may use 200 MiB"]


def test_this_machine() -> None:
    assert 1 << 20 < capacity.memory() <= MACHINE
    assert 1 <= capacity.cpus() <= len(os.sched_getaffinity(0))
