"""The members of an archive of a directory: which of them, and in which order, a tar can put where they belong."""

from __future__ import annotations

from qbtools.errors import Damaged
from qbtools.formats import ustar
from qbtools.formats.tarreader import Member

_DEVICES = (ustar.KINDS[b"3"], ustar.KINDS[b"4"])
_DIRECTORY = ustar.KINDS[b"5"]
_HARD_LINK = ustar.KINDS[b"1"]
_NAMES = 1 << 20  # names that are remembered
_MAX_NAME = 4095  # bytes of a path that Linux takes (PATH_MAX)


class TreeMembers:
    """Looks at one member after the other. All but those below name, and name itself, are left out."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._others: set[int] = set()  # of what is no directory
        self._folders: set[int] = set()
        self.found = False
        """Whether there was any."""

    def add(self, member: Member) -> None:
        """Damaged if the next member must not be, or cannot be extracted behind those that came before."""
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
        """Damaged if a hard link leads to nothing that came before. tar takes a slash in front away."""
        known = hash(_plain(untrusted_target)) in self._others
        if not known and len(self._others) < _NAMES:
            raise Damaged(f"{untrusted} is a hard link to {untrusted_target}, which is not in front of it")

    def _remember(self, untrusted: str, is_directory: bool) -> None:
        key = hash(untrusted)
        if key in self._others or (key in self._folders and not is_directory):
            raise Damaged(f"{untrusted} occurs twice")
        _add(self._folders if is_directory else self._others, key)


def _plain(untrusted: str) -> str:
    """A name without the parts that lead nowhere."""
    return "/".join(part for part in untrusted.split("/") if part not in ("", "."))


def _add(names: set[int], key: int) -> None:
    if len(names) < _NAMES:
        names.add(key)
