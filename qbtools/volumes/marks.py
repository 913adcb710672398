"""Whose a temporary thing is: the text that a snapshot or a half-written volume carries, and whether its maker lives.

    qbtools-HOST-BOOT-PIDNS-PID-START

HOST: 8 hexadecimal digits of the SHA-256 of /etc/machine-id (of the host's name where there is none). BOOT: the
kernel's boot ID without hyphens. PIDNS: the inode of the maker's PID namespace. PID: its number in there. START: when
it started, in clock ticks since boot (proc(5), stat, field 22). Fits an LVM tag and a file name.

What no longer has a maker is removed by whoever comes next, so "dead" is said only where it is certain.
"""

from __future__ import annotations

import os

from qbtools.errors import Failed
from qbtools.lean import NamedTuple, Pattern
from qbtools.volumes import kernel

PREFIX = "qbtools-"
"""Every mark begins so."""

_NUMBER = "(0|[1-9][0-9]{0,19})"
_MARK = Pattern(f"{PREFIX}([0-9a-f]{{8}})-([0-9a-f]{{32}})-{_NUMBER}-{_NUMBER}-{_NUMBER}")
_TEMPORARY = Pattern("qbtools_[0-9a-f]{15}")
_BOOT = Pattern("[0-9a-f]{32}")


class Mark(NamedTuple):
    """Names one process, on one host, for all time."""

    host: str
    boot: str
    pidns: int
    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Mark:
        """The mark of a living process of our PID namespace. Failed if there is none of that number."""
        place = "self" if pid == os.getpid() else str(pid)
        if place != "self" and not _sees_our_processes():
            raise Failed("/proc shows another PID namespace than ours")
        found = _stat(place)
        if found is None:
            raise Failed(f"there is no process {pid}")
        return cls(_host(), _boot(), _pidns(), pid, found)

    @classmethod
    def own(cls) -> Mark:
        """The mark of this process."""
        return cls.of(os.getpid())

    @classmethod
    def parse(cls, text: str) -> Mark | None:
        """The mark that text is, None if it is none."""
        match = _MARK.fullmatch(text)
        if match is None:
            return None
        return cls(match[1], match[2], int(match[3]), int(match[4]), int(match[5]))

    def __str__(self) -> str:
        return f"{PREFIX}{self.host}-{self.boot}-{self.pidns}-{self.pid}-{self.start}"

    def dead(self) -> bool:
        """True only where it is certain that the process no longer runs.

        That is, it ran on this host, and before the last boot, or in our PID namespace where no process has its
        number and start time now. Of other hosts and other namespaces nothing is known.
        """
        if self.host != _host():
            return False
        if self.boot != _boot():
            return True
        return self.pidns == _pidns() and _sees_our_processes() and _stat(str(self.pid)) != self.start


def temporary_name() -> str:
    """A name that nothing has, for a volume of ours that carries a mark: 23 of the characters [a-z0-9_]."""
    return f"qbtools_{os.urandom(8).hex()[:15]}"


def is_temporary_name(name: str) -> bool:
    """Whether name is one of temporary_name(). What has another was given it by the user, and is never removed."""
    return _TEMPORARY.fullmatch(name) is not None


def _host() -> str:
    import hashlib

    name = kernel.text("/etc/machine-id").strip() or os.uname().nodename
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _boot() -> str:
    """32 hexadecimal digits. Failed if the kernel does not say: then nothing could be told of any mark."""
    boot = kernel.text("/proc/sys/kernel/random/boot_id").strip().replace("-", "")
    if not _BOOT.fullmatch(boot):
        raise Failed("/proc does not tell the boot ID")
    return boot


def _pidns() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _sees_our_processes() -> bool:
    """Whether /proc is that of our own PID namespace."""
    return os.readlink("/proc/self") == str(os.getpid())


def _stat(place: str) -> int | None:
    """When the process /proc/PLACE started; None if there is none, or one that has ended and was not waited for."""
    text = kernel.text(f"/proc/{place}/stat")
    # The name of the program, in parentheses, may hold anything.
    fields = text[text.rfind(")") + 2 :].split()
    if len(fields) < 20:
        return None
    state, threads, start = fields[0], int(fields[17]), int(fields[19])
    return None if state in "ZX" and threads <= 1 else start
