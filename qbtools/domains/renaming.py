"""Names for domains that are restored where their own is taken."""

from __future__ import annotations

from collections.abc import Collection

from qbtools.domains import names

MAX_NUMBER = 99
STEM = 28
"""Characters of the old name that stay: with a hyphen and two digits there are 31, as many as a name may have."""


def free_name(name: str, taken: Collection[str]) -> str | None:
    """The first of NAME-1 … NAME-99, the name cut to STEM characters, that is not taken and may be used; else None."""
    for number in range(1, MAX_NUMBER + 1):
        candidate = f"{name[:STEM]}-{number}"
        if candidate not in taken and names.new_domain_problem(candidate) is None:
            return candidate
    return None


def assign(wanted: dict[str, str], taken: Collection[str], rename: bool = True) -> dict[str, str | None]:
    """New names by the old ones, in the order of wanted; None for a domain that can get none.

    wanted: by each domain its own name, or the one that the user asks for; who is first gets it. taken: by others.
    A name that is asked for by somebody in wanted is never made up for another. rename: False where none is made up.
    """
    given: dict[str, str | None] = {}
    used = set(taken)
    for domain, name in wanted.items():
        given[domain] = None if name in used else name
        used.add(name)
    if rename:
        for domain, name in wanted.items():
            if given[domain] is None:
                given[domain] = found = free_name(name, used)
                used.update([found] if found else ())
    return given
