"""The domains of a plan while it is made: what each wants, and what has become of that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from qbtools.domains import names, roles
from qbtools.domains.qubesxml import Domain


@dataclass(eq=False)
class Row:
    """One saved domain. chosen: whether it is to be made. name: the one it gets on the host.

    wants: by role what it is to have: a name, None for none, names.DEFAULT where nothing is said.
    refusals: by name of a column why it cannot be made; one that is there stays. has: by role what it gets, as wants.
    users: those that were given it; they have to be looked at again when it turns out that it cannot be made.
    """

    domain: Domain
    name: str
    chosen: bool
    wants: dict[str, str | None]
    kernel: str | None
    refusals: dict[str, str] = field(default_factory=dict)
    has: dict[str, str | None] = field(default_factory=dict)
    users: set[Row] = field(default_factory=set)
    network: Row | None = None
    """The row from which it gets its network, where that is one of the plan."""

    @property
    def good(self) -> bool:
        """Whether it will be there for others."""
        return self.chosen and not self.refusals


@dataclass(frozen=True)
class Names:
    """Who is meant by a name that a domain wants.

    planned: the row, of whatever state. on_host: the domain there. by_hand: a person wrote the name; then another
    stands in only for a domain that will not be there after all, and not for a name that is nowhere or cannot be meant.
    heard_of: whether the plan or the archive has a domain of that name.
    """

    planned: Callable[[str], Row | None]
    on_host: Callable[[str], Domain | None]
    by_hand: bool = False
    heard_of: Callable[[str], bool] = bool


def wants_of(domain: Domain) -> dict[str, str | None]:
    """What the archive says of a domain, by role."""
    found = {role: reference(domain, role) for role in roles.ROLES}
    # There is no machine of such a class without one: nothing is as good as not set.
    template = found[roles.TEMPLATE] or names.DEFAULT
    found[roles.TEMPLATE] = template if roles.has_template(domain) else None
    return found


def reference(domain: Domain, name: str) -> str | None:
    """The text of a property that may be unset (names.DEFAULT) or set to nothing (None)."""
    return domain.properties.get(name, names.DEFAULT) or None


def shown(text: str | None) -> str:
    """A name for a note: what somebody else chose may be anything."""
    if text is None:
        return "none"
    return text if text == names.DEFAULT or names.word_problem(text) is None else "(a malformed name)"
