"""Finds what each domain of a plan can get, until nothing changes any more.

Other domains cannot use a domain that cannot be created: they get the default of the host, or cannot be created
either. Such a decision is final, and then only the users of that domain are checked again. So this ends after at most
as many steps as there are domains and references.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from qbtools.domains import names, roles
from qbtools.domains.hostside import HostSide
from qbtools.domains.rows import Names, Row, shown
from qbtools.lean import NamedTuple

NAME = "name"
LOOP = "loop"
"""Refusals without a role: of a name, and of a loop of networks."""

# Why other domains cannot use a domain of the plan, by whether it should be created.
_ABSENT = {True: "cannot be restored", False: "is not restored"}

KEEP = "keep"
NONE = "none"


class Missing(NamedTuple):
    """How a reference to a missing domain is replaced.

    template: names.DEFAULT (the host's), NONE (no replacement), or the name of a template on the host.
    netvm: names.DEFAULT, NONE (no network), or KEEP (no replacement).
    ignore: if there is no replacement, the domain is created without it; otherwise it cannot be created.
    """

    template: str = names.DEFAULT
    netvm: str = names.DEFAULT
    ignore: bool = False


class _Absent(Exception):
    """The wanted domain cannot be used; the text says why."""


class Verifier:
    """Fills `has`, `users` and `refusals` of rows."""

    def __init__(self, rows: Sequence[Row], side: HostSide, missing: Missing, known: Names) -> None:
        self._rows = rows
        self._side = side
        self._missing = missing
        self._known = known

    def run(self) -> None:
        """All rows, in any order; the result does not depend on it."""
        self._settle(row for row in self._rows if row.chosen)
        # A domain that loses its network can only leave a loop, so one search is enough.
        looped = [row for loop in self._loops() for row in loop]
        self._settle(user for row in looped for user in row.users)
        for row in self._rows:
            if not row.chosen:  # shown as if all were created, so that a user who wants it later finds the names
                row.has = {role: self._name_of(row.wants[role]) for role in roles.ROLES}

    def _settle(self, rows: Iterable[Row]) -> None:
        pending = deque(rows)
        while pending:
            row = pending.popleft()
            if LOOP in row.refusals:  # the wanted name is still shown
                continue
            was_good = row.good
            self._look_at(row)
            if was_good and not row.good:
                pending.extend(row.users)

    def _look_at(self, row: Row) -> None:
        row.network = None
        for role in roles.ROLES:
            try:
                row.has[role], source = self._given(row, role)
            except _Absent as reason:
                row.refusals[role] = f"{role}: {reason}"
                row.has[role] = self._name_of(row.wants[role])
                continue
            if source is not None:
                source.users.add(row)
                if role == roles.NETVM:
                    row.network = source

    def _name_of(self, wanted: str | None) -> str | None:
        """The text in the plan if nothing was found: the name itself, if a plan may contain it."""
        row = None if wanted is None else self._known.planned(wanted)
        name = wanted if row is None else row.name
        return name if name == names.DEFAULT or (name is not None and not names.new_domain_problem(name)) else None

    def _given(self, row: Row, role: str) -> tuple[str | None, Row | None]:
        """The name that a row gets in a role, and its row if it is in the plan. _Absent if it gets none."""
        wanted = row.wants[role]
        if role == roles.TEMPLATE and wanted is not None and not roles.has_template(row.domain):
            raise _Absent(f"a {row.domain.kind} cannot have one")
        if wanted is None:
            return None, None
        if wanted == names.DEFAULT:
            return (self._default(row, role, "none is named") if role == roles.TEMPLATE else names.DEFAULT), None
        planned, there = self._known.planned(wanted), self._known.on_host(wanted)
        lack = None
        if planned is not None:
            lack = roles.lacks(planned.domain, role, row.domain)
            if lack is None and (planned.good or (planned is row and NAME not in row.refusals)):
                return planned.name, planned
        reason = lack or ("does not exist" if planned is None else _ABSENT[planned.chosen])
        if there is not None:
            lack = roles.lacks(there, role, row.domain)
            if lack is None:
                return there.name, None
            reason = lack if planned is None else reason
        reason = f"{shown(wanted)} {reason}"
        if self._known.by_hand and (lack is not None or not self._known.heard_of(wanted)):
            raise _Absent(reason)
        return self._default(row, role, reason), None

    def _default(self, row: Row, role: str, reason: str) -> str | None:
        """The replacement for a missing domain."""
        way = {roles.TEMPLATE: self._missing.template, roles.NETVM: self._missing.netvm}.get(role, names.DEFAULT)
        if role == roles.TEMPLATE:
            found = self._template(row.domain.kind, way)
        elif role == roles.NETVM:
            if way == NONE:
                return None
            found = names.DEFAULT if way == names.DEFAULT and self._side.default_netvm() else None
        else:
            found = names.DEFAULT if self._side.default_dispvm() else None
        if found is None and not self._missing.ignore:
            raise _Absent(reason)
        return found

    def _template(self, kind: str, way: str) -> str | None:
        if way == NONE:
            return None
        # The template that the user names is a TemplateVM.
        return way if way != names.DEFAULT and kind != roles.DISPOSABLE_CLASS else self._side.default_template(kind)

    def _loops(self) -> list[list[Row]]:
        """Marks the rows in loops of networks. Returns each loop."""
        seen: set[Row] = set()
        found = []
        for start in self._rows:
            trail: dict[Row, None] = {}
            row: Row | None = start
            while row is not None and row.good and row not in seen:
                seen.add(row)
                trail[row] = None
                row = row.network
            if row in trail:
                members = list(trail)
                found.append(members[members.index(row) :])
        for loop in found:
            listed = ", ".join(member.name for member in loop[:4]) + (", ..." if len(loop) > 4 else "")
            for member in loop:
                member.refusals[LOOP] = f"{roles.NETVM}: a loop of {len(loop)}: {listed}"
        return found
