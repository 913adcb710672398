"""The mark of a snapshot or an incomplete volume: a text that names its owner, and whether the owner still runs.

    qbtools-HOST-BOOT-PIDNS-PID-START

HOST: 8 hexadecimal digits of the SHA-256 of /etc/machine-id (of the host name if there is none). BOOT: the
kernel's boot ID without hyphens. PIDNS: the inode of the owner's PID namespace. PID: its number in that namespace.
START: its start time, in clock ticks since boot (proc(5), stat, field 22). A mark fits in an LVM tag and a file name.

The next run removes everything whose owner is dead, so an owner counts as dead only if this is certain.

A snapshot that a series keeps from one run to a later one has another mark: `qbtools-kept-ID`, with the ID of the
backup. It never counts as dead.
"""

from __future__ import annotations

import os

from qbtools.errors import Failed
from qbtools.lean import TYPE_CHECKING, NamedTuple, Pattern
from qbtools.volumes import kernel

PREFIX = "qbtools-"
"""Every mark begins with this text."""

_NUMBER = "(0|[1-9][0-9]{0,19})"
_MARK = Pattern(f"{PREFIX}([0-9a-f]{{8}})-([0-9a-f]{{32}})-{_NUMBER}-{_NUMBER}-{_NUMBER}")
_KEPT = Pattern(f"{PREFIX}kept-([0-9A-Za-z-]{{1,100}})")
_TEMPORARY = Pattern("qbtools_[0-9a-f]{15}")
_BOOT = Pattern("[0-9a-f]{32}")


class Mark(NamedTuple):
    """Identifies one process on one host, for all time."""

    host: str
    boot: str
    pidns: int
    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Mark:
        """The mark of a running process in our PID namespace. Failed if there is no process with that number."""
        place = "self" if pid == os.getpid() else str(pid)
        if place != "self" and not _sees_our_processes():
            raise Failed("/proc belongs to another PID namespace")
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
        """The mark in text; None if text is not a mark."""
        match = _MARK.fullmatch(text)
        if match is None:
            return None
        return cls(match[1], match[2], int(match[3]), int(match[4]), int(match[5]))

    def __str__(self) -> str:
        return f"{PREFIX}{self.host}-{self.boot}-{self.pidns}-{self.pid}-{self.start}"

    def dead(self) -> bool:
        """True only if it is certain that the process no longer runs.

        This is the case if it ran on this host before the last boot, or if it ran in our PID namespace and no process
        has its number and start time now. Nothing is known about other hosts and other namespaces.
        """
        if self.host != _host():
            return False
        if self.boot != _boot():
            return True
        return self.pidns == _pidns() and _sees_our_processes() and _stat(str(self.pid)) != self.start


class Kept(NamedTuple):
    """Identifies a backup of a series."""

    backup_id: str

    @classmethod
    def parse(cls, text: str) -> Kept | None:
        """The mark in text; None if text is no such mark."""
        match = _KEPT.fullmatch(text)
        return None if match is None else cls(match[1])

    def __str__(self) -> str:
        return f"{PREFIX}kept-{self.backup_id}"

    def dead(self) -> bool:
        """False: only the series knows when it needs the snapshot no more."""
        return False


if TYPE_CHECKING:
    Owner = Mark | Kept


def parse(text: str) -> Owner | None:
    """The mark in text, of either kind; None if there is none."""
    return Mark.parse(text) or Kept.parse(text)


def temporary_name() -> str:
    """A unique name for a volume of ours with a mark: 23 of the characters [a-z0-9_]."""
    return f"qbtools_{os.urandom(8).hex()[:15]}"


def is_temporary_name(name: str) -> bool:
    """Whether temporary_name() made name. Volumes with other names belong to the user and are never removed."""
    return _TEMPORARY.fullmatch(name) is not None


def _host() -> str:
    import hashlib

    name = kernel.text("/etc/machine-id").strip() or os.uname().nodename
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _boot() -> str:
    """32 hexadecimal digits. Failed if the kernel does not give it, because marks would mean nothing without it."""
    boot = kernel.text("/proc/sys/kernel/random/boot_id").strip().replace("-", "")
    if not _BOOT.fullmatch(boot):
        raise Failed("/proc does not have the boot ID")
    return boot


def _pidns() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _sees_our_processes() -> bool:
    """Whether /proc belongs to our own PID namespace."""
    return os.readlink("/proc/self") == str(os.getpid())


def _stat(place: str) -> int | None:
    """The start time of the process /proc/PLACE; None if there is none, or if it is a zombie."""
    text = kernel.text(f"/proc/{place}/stat")
    # The name of the program, in parentheses, may contain anything.
    fields = text[text.rfind(")") + 2 :].split()
    if len(fields) < 20:
        return None
    state, threads, start = fields[0], int(fields[17]), int(fields[19])
    return None if state in "ZX" and threads <= 1 else start
