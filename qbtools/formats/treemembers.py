"""Checks the members of the archive of a directory: whether tar can extract them safely and in this order."""

from __future__ import annotations

from qbtools.errors import Damaged
from qbtools.formats import ustar
from qbtools.formats.tarreader import Member

_DEVICES = (ustar.KINDS[b"3"], ustar.KINDS[b"4"])
_DIRECTORY = ustar.KINDS[b"5"]
_HARD_LINK = ustar.KINDS[b"1"]
_NAMES = 1 << 20  # maximum number of names that are remembered
_MAX_NAME = 4095  # maximum bytes of a path in Linux (PATH_MAX)


class TreeMembers:
    """Checks one member after the other. Only name itself and members below it are checked."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._others: set[int] = set()  # hashes of the names that are not directories
        self._folders: set[int] = set()
        self.found = False
        """Whether there was a member of name."""

    def add(self, member: Member) -> None:
        """Checks the next member. Damaged if it is not allowed, or cannot be extracted after the members before."""
        untrusted = member.untrusted_name.rstrip("/")
        if untrusted != self._name and not untrusted.startswith(f"{self._name}/"):
            return
        self.found = True
        if ".." in untrusted.split("/"):
            raise Damaged(f"{untrusted} leads out of {self._name}")
        if len(untrusted.encode("utf-8", "surrogateescape")) > _MAX_NAME:
            raise Damaged(f"a name below {self._name} has more than {_MAX_NAME} bytes")
        if member.kind in _DEVICES:
            raise Damaged(f"{untrusted} is {member.kind}")
        untrusted = _plain(untrusted)
        if untrusted == self._name and member.kind not in ("", _DIRECTORY):
            raise Damaged(f"{untrusted} is {member.kind}, neither a file nor a directory")
        self._check_parents(untrusted)
        if member.kind == _HARD_LINK:
            self._check_target(untrusted, member.untrusted_target)
        self._remember(untrusted, member.kind == _DIRECTORY)

    def _check_parents(self, untrusted: str) -> None:
        """Damaged if a directory of the member is a file or a link."""
        at = len(self._name)
        while 0 <= at < len(untrusted):
            key = hash(untrusted[:at])
            if key in self._others:
                raise Damaged(f"{untrusted} is below {untrusted[:at]}, which is no directory")
            _add(self._folders, key)
            at = untrusted.find("/", at + 1)

    def _check_target(self, untrusted: str, untrusted_target: str) -> None:
        """Damaged if the target of a hard link is not an earlier member. tar ignores a leading slash."""
        known = hash(_plain(untrusted_target)) in self._others
        if not known and len(self._others) < _NAMES:
            raise Damaged(f"{untrusted} is a hard link to {untrusted_target}, which is not in front of it")

    def _remember(self, untrusted: str, is_directory: bool) -> None:
        key = hash(untrusted)
        if key in self._others or (key in self._folders and not is_directory):
            raise Damaged(f"{untrusted} occurs twice")
        _add(self._folders if is_directory else self._others, key)


def _plain(untrusted: str) -> str:
    """A name without empty parts and `.`."""
    return "/".join(part for part in untrusted.split("/") if part not in ("", "."))


def _add(names: set[int], key: int) -> None:
    if len(names) < _NAMES:
        names.add(key)
