"""The domains of a plan while it is made: what each wants, and what it gets."""

from __future__ import annotations

from collections.abc import Callable

from qbtools.domains import names, roles
from qbtools.domains.qubesxml import Domain
from qbtools.lean import NamedTuple


class Row:
    """One saved domain. chosen: whether to create it. name: its name on the host.

    wants: by role the wanted domain: a name, None for none, names.DEFAULT if nothing is set.
    refusals: by column why it cannot be created; never removed. has: by role the domain that it gets, as wants.
    users: the rows that got it; they must be checked again if it cannot be created.
    """

    def __init__(
        self, domain: Domain, name: str, chosen: bool, wants: dict[str, str | None], kernel: str | None
    ) -> None:
        self.domain = domain
        self.name = name
        self.chosen = chosen
        self.wants = wants
        self.kernel = kernel
        self.refusals: dict[str, str] = {}
        self.has: dict[str, str | None] = {}
        self.users: set[Row] = set()
        self.network: Row | None = None
        """The row from which it gets its network, if that is in the plan."""

    @property
    def good(self) -> bool:
        """Whether others can use it."""
        return self.chosen and not self.refusals


class Names(NamedTuple):
    """The domain that a wanted name means.

    planned: the row, in any state. on_host: the domain there. by_hand: a person wrote the name; then only a domain that
    will not exist after all is replaced, and not a name that does not exist anywhere or cannot be used.
    heard_of: whether the plan or the archive has a domain of that name.
    """

    planned: Callable[[str], Row | None]
    on_host: Callable[[str], Domain | None]
    by_hand: bool = False
    heard_of: Callable[[str], bool] = bool


def wants_of(domain: Domain) -> dict[str, str | None]:
    """The properties of a domain in the archive, by role."""
    found = {role: reference(domain, role) for role in roles.ROLES}
    # No machine of such a class can be without one, so an empty value counts as not set.
    template = found[roles.TEMPLATE] or names.DEFAULT
    found[roles.TEMPLATE] = template if roles.has_template(domain) else None
    return found


def reference(domain: Domain, name: str) -> str | None:
    """The text of a property, which may be unset (names.DEFAULT) or empty (None)."""
    return domain.properties.get(name, names.DEFAULT) or None


def shown(text: str | None) -> str:
    """A name for a note. It comes from the archive, so it may be any text."""
    if text is None:
        return "none"
    return text if text == names.DEFAULT or names.word_problem(text) is None else "(a malformed name)"
