"""What a restore plan is: for each saved domain whether it is made again, under which name, and with what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from qbtools.domains.qubesxml import Metadata

CREATE = "create"
SKIP = "skip"


class Written(NamedTuple):
    """What a plan tells about one domain: all that a person may change.

    action: CREATE or SKIP. domain: its name in the archive; name: the one it gets on the host.
    template, netvm, default_dispvm: names on the host, None for none, names.DEFAULT for the host's default, which then
    is not set at the domain itself (a template always is). kernel: likewise, the name of a kernel.
    """

    action: str
    domain: str
    name: str
    template: str | None
    netvm: str | None
    default_dispvm: str | None
    kernel: str | None


@dataclass(frozen=True)
class PlanLine:
    """One domain of a plan.

    kind: its class. size: bytes of its saved volumes, None if the archive does not say it.
    problem: what forbids to make it so, None if nothing does. notes: what will change.
    label: a label of the host's. pools: by each pool of the archive that is not there what stands in for it, None for
    nothing. further: the domains that its other properties and its devices name, by their name in the archive those on
    the host; what is not in it is left out. leftover: a domain of the new name is there, and has to be removed before.
    """

    written: Written
    kind: str
    size: int | None
    problem: str | None
    notes: tuple[str, ...]
    label: str
    pools: Mapping[str, str | None] = field(default_factory=dict)
    further: Mapping[str, str] = field(default_factory=dict)
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
        """Whether it is to be made."""
        return self.written.action == CREATE


@dataclass(frozen=True)
class Plan:
    """All lines, in the order in which the domains are to be made: templates, templates for DispVMs, the rest.

    host: what it was made for. changed: what a check had to change in a plan that was read, a sentence each.
    """

    lines: Sequence[PlanLine]
    host: Metadata
    changed: Sequence[str] = ()

    @property
    def creates(self) -> list[PlanLine]:
        """The lines of the domains that are to be made."""
        return [line for line in self.lines if line.created]

    @property
    def problems(self) -> list[PlanLine]:
        """The lines that forbid to carry the plan out: to be made, but with a problem."""
        return [line for line in self.creates if line.problem is not None]
