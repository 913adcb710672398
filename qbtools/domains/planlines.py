"""The data of a restore plan: for each saved domain whether it is created, under which name, and with which parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qbtools.domains.qubesxml import Metadata
from qbtools.errors import QbError, Refused, and_more
from qbtools.lean import NamedTuple

CREATE = "create"
SKIP = "skip"


class Written(NamedTuple):
    """The part of a plan about one domain that a person may change.

    action: CREATE or SKIP. domain: its name in the archive; name: its name on the host.
    template, netvm, default_dispvm: names on the host, None for none, names.DEFAULT for the host's default, which is
    then not set in the domain (a template always is). kernel: the same, for the name of a kernel.
    """

    action: str
    domain: str
    name: str
    template: str | None
    netvm: str | None
    default_dispvm: str | None
    kernel: str | None


class PlanLine(NamedTuple):
    """One domain of a plan.

    kind: its class. size: bytes of its saved volumes, None if the archive does not say it.
    problem: why it cannot be created like this, None if it can. notes: what will change.
    label: a label of the host. pools: the replacements of missing pools, None for nothing. further: the names on the
    host of domains that its other properties and its devices name, by name in the archive; others are left out.
    leftover: an unfinished domain with the new name exists and must be removed first.
    """

    written: Written
    kind: str
    size: int | None
    problem: str | None
    notes: tuple[str, ...]
    label: str
    pools: Mapping[str, str | None] = {}
    further: Mapping[str, str] = {}
    leftover: bool = False

    @property
    def domain(self) -> str:
        """Its name in the archive."""
        return self.written.domain

    @property
    def name(self) -> str:
        """Its name on the host."""
        return self.written.name

    @property
    def created(self) -> bool:
        """Whether it will be created."""
        return self.written.action == CREATE


class Plan(NamedTuple):
    """All lines, in the order in which the domains are created: templates, templates for DispVMs, the rest.

    host: the host for which it was made. changed: the changes by a check of a plan that was read, a sentence each.
    failure: why the host could not create one of the domains. said: the warnings of the host that are notes of lines.
    """

    lines: Sequence[PlanLine]
    host: Metadata
    changed: Sequence[str] = ()
    failure: QbError | None = None
    said: Sequence[str] = ()

    @property
    def creates(self) -> list[PlanLine]:
        """The lines of the domains that will be created."""
        return [line for line in self.lines if line.created]

    @property
    def problems(self) -> list[PlanLine]:
        """The lines that prevent carrying out the plan: to be created, but with a problem."""
        return [line for line in self.creates if line.problem is not None]

    @property
    def left_out(self) -> list[PlanLine]:
        """The lines of the domains that are skipped and have a problem."""
        return [line for line in self.lines if not line.created and line.problem is not None]

    def check(self) -> None:
        """Refused, with the first problem, if the plan cannot be carried out. Raises failure otherwise."""
        if problems := self.problems:
            first = f"{problems[0].domain} ({problems[0].problem})"
            raise Refused(
                f"{len(problems)} of the domains cannot be restored: {first}{and_more(problems)}",
                "change the plan, or make it with --skip-broken or --ignore-missing",
            )
        if self.failure is not None:
            raise self.failure
