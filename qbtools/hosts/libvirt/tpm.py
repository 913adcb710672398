"""The state of emulated TPMs: where libvirt has it, and how that of a machine that is restored comes there.

libvirt starts the program swtpm with the directory STATE/UUID/tpm2 (or tpm1.2), in which it keeps all state of the TPM
in files. A new machine whose directory is there and not empty keeps that state.
"""

from __future__ import annotations

import grp
import io
import os
import pwd
import re
import shutil
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from xml.etree.ElementTree import Element

from qbtools.errors import Refused
from qbtools.streams import BLOCK, Writer
from qbtools.volumes.kind import naming

FILE = "tpm"
"""The further file of a domain that is the directory UUID."""

_SYSTEM = "/var/lib/libvirt/swtpm"
_SESSION = "libvirt/qemu/swtpm"  # below $XDG_CONFIG_HOME
_SETTINGS = "/etc/libvirt/qemu.conf"
_SETTING = re.compile(r'^\s*(swtpm_user|swtpm_group)\s*=\s*"([^"]*)"', re.MULTILINE)
_USER = "tss"  # the default of libvirt, which takes root if there is no such user

_VERSIONS = ("tpm1.2", "tpm2")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")
_LOCK = ".lock"  # of swtpm while it runs
_THROUGH, _PRIVATE, _FILE_MODE = 0o711, 0o700, 0o600  # the modes that libvirt and swtpm give


def has_state(domain: Element) -> bool:
    """Whether the machine with this XML has a TPM whose state is in files."""
    return domain.find("devices/tpm/backend[@type='emulator']") is not None


class States:
    """The states of the TPMs of a libvirt."""

    def __init__(self, uri: str, environment: Mapping[str, str]) -> None:
        self._session = uri.partition("?")[0].endswith("/session")
        home = environment.get("XDG_CONFIG_HOME") or os.path.join(environment.get("HOME", "/"), ".config")
        self._place = os.path.join(home, _SESSION) if self._session else _SYSTEM

    def path(self, uuid: str) -> str:
        """The directory of a machine, which may not exist."""
        return os.path.join(self._place, uuid)

    def check_free(self, name: str, uuid: str) -> None:
        """Refused if there is the state of a machine with that UUID, which libvirt does not know."""
        if os.path.lexists(self.path(uuid)):
            raise Refused(
                f"{name} cannot get the state of its TPM: {self.path(uuid)} already exists, but no domain has it",
                "move it away, or restore the machine under another name, with which it gets another UUID",
            )

    def put(self, name: str, untrusted: str, uuid: str, warn: Callable[[str], None]) -> None:
        """Copies what came out of an archive, the directory untrusted, to the place of a machine without state.

        Only the files that swtpm makes are taken. There is a warning if there are none, and for each other one.
        """
        with naming(f"restore the state of the TPM of {name}"):
            found = self._files(name, untrusted, warn)
            if not found:
                warn(f"{name}: the archive has no state of its TPM: it gets a new one")
                return
            os.makedirs(self._place, _THROUGH, exist_ok=True)
            self._make(self.path(uuid), _THROUGH, None)
            owner = None if self._session or os.geteuid() != 0 else _owner()
            for version in dict.fromkeys(version for version, _file in found):
                self._make(os.path.join(self.path(uuid), version), _PRIVATE, owner)
            for version, file in found:
                _copy(os.path.join(untrusted, version, file), os.path.join(self.path(uuid), version, file), owner)
            for version in dict.fromkeys(version for version, _file in found):
                _flush(os.path.join(self.path(uuid), version))
            _flush(self.path(uuid))
            _flush(self._place)

    def remove(self, uuid: str) -> None:
        """Removes the state of a machine, if there is any."""
        with naming(f"remove {self.path(uuid)}"), suppress(FileNotFoundError):
            shutil.rmtree(self.path(uuid))

    @staticmethod
    def _files(name: str, untrusted: str, warn: Callable[[str], None]) -> list[tuple[str, str]]:
        """The directory and the name of each file that is taken."""
        found = []
        for version in sorted(os.listdir(untrusted)) if os.path.isdir(untrusted) else []:
            place = os.path.join(untrusted, version)
            known = version in _VERSIONS and stat.S_ISDIR(os.lstat(place).st_mode)
            for file in sorted(os.listdir(place)) if known else [""]:
                mode = os.lstat(os.path.join(place, file)).st_mode if file else 0
                if _NAME.fullmatch(file) and stat.S_ISREG(mode):
                    found.append((version, file))
                elif file != _LOCK:
                    what = os.path.join(version, file).rstrip("/")
                    warn(f"{name}: {ascii(what)} in the state of its TPM is not restored")
        return found

    @staticmethod
    def _make(path: str, mode: int, owner: tuple[int, int] | None) -> None:
        os.mkdir(path, _PRIVATE)
        if owner is not None:
            os.chown(path, *owner)
        os.chmod(path, mode)  # whatever the umask is


def _copy(source: str, target: str, owner: tuple[int, int] | None) -> None:
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with io.FileIO(fd) as reader:
        new = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
        with io.FileIO(new, "w") as file:
            writer = Writer(file, target)
            while data := reader.read(BLOCK):
                writer.write(data)
            if owner is not None:
                os.fchown(new, *owner)
            os.fsync(new)


def _flush(place: str) -> None:
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # some file systems cannot do that
            os.fsync(fd)
    finally:
        os.close(fd)


def _owner() -> tuple[int, int]:
    """The user and the group with which libvirt runs swtpm."""
    text = b""
    with suppress(FileNotFoundError), io.FileIO(_SETTINGS) as file:
        text = file.readall() or b""
    wanted = dict(_SETTING.findall(text.decode("utf-8", "replace")))
    user, group = wanted.get("swtpm_user", _USER), wanted.get("swtpm_group", _USER)
    return _number(user, _user), _number(group, _group)


def _number(name: str, find: Callable[[str], int]) -> int:
    """The number of a user or a group, which libvirt also takes as a number with or without `+`. 0 if there is none."""
    with suppress(KeyError):
        return find(name)
    digits = name.removeprefix("+")
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def _user(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _group(name: str) -> int:
    return grp.getgrnam(name).gr_gid
