"""Names of domains and volumes: which ones Qubes OS accepts, and which are safe in a path, a line or an XML text."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

ADMIN = "dom0"
"""The administrative domain, which every qubes.xml has."""

ADMIN_CLASS = "AdminVM"

UNFINISHED = "qbtools-unfinished"
"""The feature of a domain until its restore has ended. Its text names the run."""

HELD = "qbtools-held"
"""The feature of a domain whose volumes are held for a run that saves. Its text names the run."""

DEFAULT = "default"
"""Means the default of a host. No domain may have this name."""

BACKUP_FEATURES = ("backup-content", "backup-path", "backup-size")
"""The features with the place of a domain in an archive (qubes.backup.Backup)."""

BACKENDS = ("backend-domain", "backend_domain")
"""The attributes of a device that name the domain that provides it."""

ANY = "*"
"""Means any domain there: a device that is assigned to any port (qubes.device_protocol of Qubes OS 4.3)."""

KEYWORDS = ("none", DEFAULT)
"""Words that cannot be the name of a domain, kernel or pool in a plan or in Qubes OS."""

HOME = "dom0-home/"
"""The path of its home in an archive."""

MAX_DOMAIN = 31
"""The most characters of a domain's name."""

# Sources, all in QubesOS/qubes-core-admin: Qubes OS 4.3 qubes.vm.validate_name; 4.0 to 4.2 the same without the dot;
# 2 to 3.2 QubesVm.verify_name in core-modules/000QubesVm.py, with the dot. All have at most 31 characters.
_DOMAIN = re.compile(rf"[A-Za-z][A-Za-z0-9_.-]{{0,{MAX_DOMAIN - 1}}}")
# The name of a class of Python: AppVM, RemoteVM (qubes.vm.BaseVM.__xml__); 2 to 3.2 are translated.
_CLASS = re.compile(r"[A-Za-z][A-Za-z0-9]{0,30}")
# Qubes OS has root, private, volatile and kernel (volume_config of qubes.vm.*); hosts of qbtools may have others.
# VOLUME.img is the last component of an archive name: at most 88 bytes, and no component begins with "-".
_VOLUME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,83}")
# "vm%d/" of the qid, below qubes.config.max_qid (qubes.backup.Backup); dom0, whose qid is 0, has its home only.
_PATH = re.compile(r"vm[1-9][0-9]{0,9}/")
# dir_path of a domain in Qubes OS 2 to 3.2, which only warned of an odd name: any component of an archive name.
_OLDER_PATH = re.compile(r"(?:appvms|servicevms|vm-templates)/(?!-|\.{1,2}/)[A-Za-z0-9_.@+-]{1,88}/")
_DIRECTORY = re.compile(r"(?:(?:appvms|servicevms|vm-templates)/)?[^/]+/")
# The last component of the home of the first member of the group qubes (qubes.backup.Backup): a user of Linux.
_HOME = re.compile(r"dom0-home/(?!-|\.{1,2}$)[A-Za-z0-9_.@+-]{1,88}", re.ASCII)
# Kernels, pools and labels: a host may give them any name that is a word. In an archive they may be any text (a kernel
# is a directory, nothing checks a pool), because a plan replaces those that the host does not have.
_WORD = re.compile(r"[A-Za-z0-9_][!-~]{0,127}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")

# Qubes OS refuses these as names of a new domain (qubes.vm.validate_name, August 2026).
_RESERVED = (ADMIN, "Domain-0", *KEYWORDS)
# Hosts and --files-to use these names beside the directories of domains.
_OURS = ("qubes.xml", "qubes.xml.lock", HOME.rstrip("/"))


def domain_problem(name: str) -> str | None:
    """What is wrong with a domain's name, or None. A good name is safe as a directory and in a line."""
    if not _DOMAIN.fullmatch(name):
        return "a domain's name has 1 to 31 letters, digits, _, . and -, and begins with a letter"
    return None


def new_domain_problem(name: str, without: Collection[str] = ()) -> str | None:
    """What is wrong with the name of a new domain, or None: as domain_problem, and the name must not be reserved.

    without: texts that no name may contain on the host.
    """
    if name in _RESERVED or name in _OURS or name.endswith("-dm"):
        return "this name is reserved"
    found = next((text for text in without if text in name), None)
    return domain_problem(name) if found is None else f"the host accepts no name that contains {found}"


def class_problem(name: str) -> str | None:
    """What is wrong with the name of a domain's class, or None."""
    return None if _CLASS.fullmatch(name) else "a class has 1 to 31 letters and digits, and begins with a letter"


def volume_problem(name: str) -> str | None:
    """What is wrong with a volume's name, or None. Such a name is safe as a file and in a line, and is never "-"."""
    if not _VOLUME.fullmatch(name):
        return "a volume's name has 1 to 84 letters, digits, _ and -, and does not begin with -"
    return None


def word_problem(name: str) -> str | None:
    """What is wrong with the name of a kernel, a pool or a label, or None. Such a name is safe in a line."""
    if not _WORD.fullmatch(name) or name in KEYWORDS:
        return "it has 1 to 128 ASCII characters without blank, begins with a letter, digit or _, is not a keyword"
    return None


def is_reference(name: str) -> bool:
    """Whether a property of that name names another domain: `template`, `netvm`, `default_dispvm`, `audiovm` …

    Qubes OS calls all of them so, those of the whole system too.
    """
    return name.endswith(("vm", "template"))


def backends(attributes: Mapping[str, str]) -> dict[str, str]:
    """The domains in the attributes of a device, by attribute; empty if any domain is allowed."""
    return {key: attributes[key] for key in BACKENDS if attributes.get(key, ANY) not in (ANY, "")}


def is_domain_path(path: str) -> bool:
    """Whether path is `vmQID/`, the directory of a domain in an archive."""
    return _PATH.fullmatch(path) is not None


def is_older_path(path: str) -> bool:
    """The same for archives of Qubes OS 2 to 3.2: also `appvms/NAME/`, `servicevms/NAME/` and `vm-templates/NAME/`."""
    return is_domain_path(path) or _OLDER_PATH.fullmatch(path) is not None


def directory_of(archive_name: str) -> str:
    """The path of the domain to which a file would belong: `vm1/` of `vm1/x/y`, `appvms/work/` of `appvms/work/x`.

    archive_name itself if it is in no directory.
    """
    match = _DIRECTORY.match(archive_name)
    return match[0] if match else archive_name


def is_home(path: str) -> bool:
    """Whether path is `dom0-home/USER`, the archive name of the administrative domain's home."""
    return _HOME.fullmatch(path) is not None


def quoted(text: str) -> str:
    """text for a message: quoted, and not longer than a line."""
    return f'"{text}"' if len(text) <= 100 else f'"{text[:100]}…"'


def number(text: str) -> int | None:
    """0 … 2^63-1 from decimal digits without sign and leading zero, otherwise None."""
    if not _NUMBER.fullmatch(text):
        return None
    value = int(text)
    return value if value < 1 << 63 else None
