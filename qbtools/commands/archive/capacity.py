"""The memory and the CPUs that this process may use: those of the machine, or less if its cgroups or limits say so."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

from qbtools.volumes.kernel import text

_UNIFIED = ""  # the name of version 2 in /proc/self/cgroup


def memory(root: str = "") -> int:
    """Bytes of memory that this process may use. root: a prefix for /proc and for the mount points of cgroups."""
    return min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_limits(root))


def _limits(root: str) -> Iterator[int]:
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _hard = resource.getrlimit(limit)
        yield soft if soft != resource.RLIM_INFINITY else 1 << 63
    for directory in _cgroups(root, "memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            number = text(f"{directory}/{name}").strip()
            if number.isdecimal():
                yield int(number)


def cpus(root: str = "") -> int:
    """The number of CPUs that this process may use, at least 1. A fraction counts as one. root as for memory()."""
    found = len(os.sched_getaffinity(0))
    for directory in _cgroups(root, "cpu"):
        quota = (text(f"{directory}/cpu.max") or _older_quota(directory)).split()
        if len(quota) == 2 and all(number.isdecimal() for number in quota) and int(quota[1]):
            found = min(found, -(-int(quota[0]) // int(quota[1])))
    return max(found, 1)


def _older_quota(directory: str) -> str:
    return f"{text(f'{directory}/cpu.cfs_quota_us')} {text(f'{directory}/cpu.cfs_period_us')}"


def _cgroups(root: str, controller: str) -> Iterator[str]:
    """The directories of the cgroups of this process, of both versions, up to the root. The limits of each apply."""
    own: dict[str, str] = {}
    for line in text(f"{root}/proc/self/cgroup").splitlines():
        _number, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    for line in text(f"{root}/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        kind, _source, options = after.split(" ", 2)
        if kind not in ("cgroup", "cgroup2") or (kind == "cgroup" and controller not in options.split(",")):
            continue
        top, place = before.split()[3:5]
        path = own.get(_UNIFIED if kind == "cgroup2" else controller, "/")
        # In a container only a part of the tree may be mounted, and the path may be outside of it.
        inside = path.removeprefix(top) if f"{path}/".startswith(f"{top.rstrip('/')}/") else ""
        parts = [part for part in inside.split("/") if part]
        for count in range(0 if ".." in parts else len(parts), -1, -1):
            yield "/".join([f"{root}{place}", *parts[:count]])
