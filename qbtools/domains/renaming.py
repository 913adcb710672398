"""New names for domains whose own name is taken or cannot be used."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from xml.etree.ElementTree import Element

from qbtools.domains import names

MAX_NUMBER = 99
STEM = names.MAX_DOMAIN - 3
"""Characters of the old name that are kept: a hyphen and two digits more are the limit of a name."""

_FOREIGN = re.compile(r"[^A-Za-z0-9_.-]")


def free_name(
    name: str, taken: Collection[str], problem: Callable[[str], str | None] = names.new_domain_problem
) -> str | None:
    """The first of NAME-1 … NAME-99, the name cut to STEM characters, that is not taken and has no problem; otherwise
    None.

    problem: returns what is wrong with a name, or None.
    """
    for number in range(1, MAX_NUMBER + 1):
        candidate = f"{name[:STEM]}-{number}"
        if candidate not in taken and problem(candidate) is None:
            return candidate
    return None


def assign(
    wanted: dict[str, str],
    taken: Collection[str],
    fixed: Collection[str] = (),
    without: Collection[str] = (),
) -> dict[str, str | None]:
    """New names by the old ones, in the order of wanted; None for a domain that cannot get one.

    wanted: for each domain its own name, or the one that the user asks for. The first domain that wants a name gets it.
    taken: names of others. A generated name is never one of those in wanted. fixed: domains that get no generated name.
    without: texts that no name may contain; a hyphen replaces them.
    """

    def problem(name: str) -> str | None:
        return names.new_domain_problem(name, without)

    given: dict[str, str | None] = {}
    used = set(taken)
    for domain, name in wanted.items():
        given[domain] = None if name in used or problem(name) else name
        used.add(name)
    for domain, name in wanted.items():
        if given[domain] is None and domain not in fixed:
            stem = _without(name, without)
            good = stem not in used and problem(stem) is None
            given[domain] = found = stem if good else free_name(stem, used, problem)
            used.update([found] if found else ())
    return given


def _without(name: str, without: Collection[str]) -> str:
    """The name without these texts: a hyphen replaces the punctuation at the beginning of each."""
    for text in without:
        name = name.replace(text, "-" + text.lstrip("_.-"))
    return name


def make_readable(root: Element, warn: Callable[[str], None]) -> None:
    """Renames each domain of a qubes.xml whose name cannot be used, and changes all references to it.

    Qubes OS 2 to 3.2 accepted such names with only a warning. warn: gets a sentence for each. A domain without a name
    is not changed, and neither are domains with the same name.
    """
    found: dict[str, list[Element]] = {}
    for domain in root.iterfind("domains/domain"):
        if domain.get("class") != names.ADMIN_CLASS:
            for element in domain.iterfind("properties/property[@name='name']"):
                found.setdefault(element.text or "", []).append(element)
    numbers: dict[str, int] = {}
    new: dict[str, str] = {}
    for old, elements in found.items():
        problem = "this name is reserved" if old == names.ADMIN else names.domain_problem(old)
        if problem is None or not old or len(elements) != 1:
            continue
        name = _readable(old, found, numbers)
        elements[0].text = name
        warn(f"the domain name {names.quoted(old)} cannot be used ({problem}): the domain is renamed {name}")
        if old != names.ADMIN:  # a reference to that name means the real dom0
            new[old] = name
    if new:
        _follow(root, new)


def _readable(old: str, taken: Collection[str], numbers: dict[str, int]) -> str:
    """A valid name like old that no domain has. numbers: the last number for each name; is changed."""
    stem = _FOREIGN.sub("_", old)
    if not (stem[0].isascii() and stem[0].isalpha()):
        stem = f"vm{stem}"
    if names.domain_problem(stem) is None and stem not in taken and stem != names.ADMIN and stem not in numbers:
        numbers[stem] = 0
        return stem
    stem = stem[: names.MAX_DOMAIN - 7]
    while True:
        numbers[stem] = numbers.get(stem, 0) + 1
        name = f"{stem}-{numbers[stem]}"
        if name not in taken and name not in numbers:
            numbers[name] = 0
            return name


def _follow(root: Element, new: dict[str, str]) -> None:
    """Replaces old names by new ones in properties and devices."""
    for element in root.iter("property"):
        if names.is_reference(element.get("name", "")) and element.text in new:
            element.text = new[element.text]
    for device in root.iter("device"):
        for key, old in names.backends(device.attrib).items():
            if old in new:
                device.set(key, new[old])
