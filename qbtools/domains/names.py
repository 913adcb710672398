"""Names of domains and volumes: what Qubes OS takes, and what is safe as part of a path, a line or an XML text."""

from __future__ import annotations

import re

ADMIN = "dom0"
"""The administrative domain, which every qubes.xml has."""

ADMIN_CLASS = "AdminVM"

UNFINISHED = "qbtools-unfinished"
"""The feature that a domain bears until its restore has ended; its text tells who makes it."""

DEFAULT = "default"
"""Stands for what a host has as its default. No domain may be called so."""

KEYWORDS = ("none", DEFAULT)
"""What no domain, kernel or pool can be called where a plan or Qubes OS names one."""

HOME = "dom0-home/"
"""Where its home stands in an archive."""

_DOMAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,30}")
_CLASS = re.compile(r"[A-Za-z][A-Za-z0-9]{0,30}")
# The file VOLUME.img is the last component of an archive name: at most 88 bytes, and no component begins with "-".
_VOLUME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,83}")
_PATH = re.compile(r"vm[1-9][0-9]{0,9}/")
_OLDER_PATH = re.compile(r"(?:appvms|servicevms|vm-templates)/[A-Za-z][A-Za-z0-9_-]{0,30}/")
_DIRECTORY = re.compile(r"(?:(?:appvms|servicevms|vm-templates)/)?[^/]+/")
_HOME = re.compile(r"dom0-home/(?![.-])[A-Za-z0-9_.@+-]{1,88}")
# Kernels, pools and labels: what a host calls them is its matter, as long as it is a word.
_WORD = re.compile(r"[A-Za-z0-9_][!-~]{0,127}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")

# Qubes OS refuses these as names of a new domain (qubes.vm.validate_name, August 2026).
_RESERVED = (ADMIN, "Domain-0", *KEYWORDS)


def domain_problem(name: str) -> str | None:
    """What is wrong with a domain's name, or None. Such a name is safe as a directory and in a line."""
    if not _DOMAIN.fullmatch(name):
        return "a domain's name has 1 to 31 letters, digits, _ and -, and begins with a letter"
    return None


def new_domain_problem(name: str) -> str | None:
    """What forbids to call a domain to be saved so, or None: as domain_problem, and not reserved by Qubes OS."""
    if name in _RESERVED or name.endswith("-dm"):
        return "this name is reserved"
    return domain_problem(name)


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


def is_domain_path(path: str) -> bool:
    """Whether path is `vmQID/`, where the files of a domain stand in an archive."""
    return _PATH.fullmatch(path) is not None


def is_older_path(path: str) -> bool:
    """The same for what Qubes OS 2 to 3.2 saved: `appvms/NAME/`, `servicevms/NAME/` and `vm-templates/NAME/` too."""
    return is_domain_path(path) or _OLDER_PATH.fullmatch(path) is not None


def directory_of(archive_name: str) -> str:
    """The path of the domain to which a file would belong: `vm1/` of `vm1/x/y`, `appvms/work/` of `appvms/work/x`.

    archive_name itself where it stands in no directory.
    """
    match = _DIRECTORY.match(archive_name)
    return match[0] if match else archive_name


def is_home(path: str) -> bool:
    """Whether path is `dom0-home/USER`, the archive name of the administrative domain's home."""
    return _HOME.fullmatch(path) is not None


def number(text: str) -> int | None:
    """0 … 2^63-1 from decimal digits without sign and leading zero, else None."""
    if not _NUMBER.fullmatch(text):
        return None
    value = int(text)
    return value if value < 1 << 63 else None
