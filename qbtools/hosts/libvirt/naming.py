"""Names for the domains of libvirt, whose own names may have any character but / and newline."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from qbtools.domains import names
from qbtools.hosts.libvirt.virsh import Named

_FOREIGN = re.compile(r"[^A-Za-z0-9_.-]")
_PREFIX = "vm-"
_DIGITS = 8


def assigned(domains: Iterable[Named]) -> dict[str, str]:
    """The UUID of each domain, by a name that a qubes.xml can have.

    A name that is allowed is kept. In others, a hyphen replaces each character that is not allowed. A name that is too
    long is cut, and gets digits of its hash. If another domain has the name, a number is added. The result depends
    only on the domains, not on their order.
    """
    found: dict[str, str] = {}
    others = []
    for domain in domains:
        if names.new_domain_problem(domain.name) is None:
            found[domain.name] = domain.uuid
        else:
            others.append(domain)
    for domain in sorted(others, key=lambda one: (one.name, one.uuid)):
        found[_free(_allowed(domain.name), found)] = domain.uuid
    return found


def fits(other: str, name: str) -> bool:
    """Whether a domain of libvirt called other can be called name in an archive."""
    if not other or "/" in other or not all(char.isprintable() or char == "\t" for char in other):
        return False
    if names.new_domain_problem(other) is None:
        return other == name
    stem, _hyphen, number = name.rpartition("-")
    allowed = _allowed(other)
    return name == allowed or (names.number(number) is not None and bool(stem) and allowed.startswith(stem))


def _allowed(name: str) -> str:
    """A name that is allowed, like this one."""
    text = _FOREIGN.sub("-", name)
    if names.new_domain_problem(text[: names.MAX_DOMAIN]) is not None:
        text = _PREFIX + text
    if len(text) > names.MAX_DOMAIN or names.new_domain_problem(text) is not None:
        digits = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGITS]
        text = f"{text[: names.MAX_DOMAIN - _DIGITS - 1]}-{digits}"
    return text


def _free(name: str, taken: dict[str, str]) -> str:
    """The name, or the first of NAME-2, NAME-3 … that is not taken."""
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        end = f"-{number}"
        candidate = name[: names.MAX_DOMAIN - len(end)] + end
    return candidate
