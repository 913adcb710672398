"""Carries out a restore plan on a host: creates its domains, empty and marked as unfinished, and finishes them later.

An incomplete domain has the mark of the run that fills it. If the run has ended, the domain is a leftover, and the next
run that wants its name removes it. So a second run can always complete an interrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from functools import partial

from qbtools.domains import inventory, names, plan, recreate, selection
from qbtools.domains.defaults import Defaults
from qbtools.domains.inventory import NONE
from qbtools.domains.lines import read_fields
from qbtools.domains.plan import AS_WRITTEN
from qbtools.domains.planlines import CREATE, SKIP, Plan, PlanLine, Written
from qbtools.domains.qubesxml import Metadata
from qbtools.domains.verifier import NONE as NO_NETWORK
from qbtools.errors import Damaged, Failed, QbError, Refused, and_more, escape
from qbtools.hosts.client import Host, mark_of
from qbtools.lean import NamedTuple
from qbtools.streams import Reader
from qbtools.volumes.marks import Mark

_AT_ONCE = 500  # domains


class Made(NamedTuple):
    """A file of the archive that is needed. domain: its name on the host.

    volume: None if it is not a volume. target: the word for qb-volwrite, None if it is not written.
    """

    archive_name: str
    domain: str
    volume: str | None
    target: str | None

    def to_line(self) -> str:
        """The fields separated by tabs, `-` for None, with newline."""
        return "\t".join((self.archive_name, self.domain, self.volume or NONE, self.target or NONE)) + "\n"


class Restore:
    """A plan that is carried out. warn, note: print warnings and notes."""

    def __init__(
        self,
        host: Host,
        archive: Metadata,
        written: Sequence[Written],
        note: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        """written: the plan as it was read. Reads the inventory of the host once, for all later calls."""
        self._host = host
        self._archive = archive
        self._written = written
        self._note = note
        self._warn = warn
        self._inventory: Metadata = host.inventory()
        self._defaults: Defaults = host.defaults()
        self._told: set[str] = set()
        self._begun: dict[str, dict[str, str]] = {}  # the targets of the volumes, by name on the host
        self._given: dict[str, bytes] = {}  # the last document that the host got of it

    def rehearse(self) -> list[Made]:
        """The result of apply() without targets. Creates nothing. Refused as apply().

        Failed if the host says that it could not create a domain. It is not asked about the name of a leftover, which
        apply() would remove first.
        """
        found = self._checked()
        for text in _warnings(self._host, self._archive, found):
            self._warn(text)
        return self._without_targets(found)

    def needed(self) -> list[Made]:
        """The same for a plan about which the host was asked before."""
        return self._without_targets(self._checked())

    def apply(self, owner: Mark, keep_going: bool) -> list[Made]:
        """Creates all domains of the plan, with the mark of owner. Returns the files that they need.

        Refused, before anything is created, if the plan has a problem. If anything fails, everything is removed again.
        With keep_going only the domain that failed and those that need it are removed; Failed if none is left. After a
        signal the caller must call undo() or settle(), and may do something before that.
        """
        first = self._checked()
        for line in first.creates:
            if line.leftover:
                self._note(f"removing {line.name}, left unfinished by a run that has ended")
                self._host.remove(line.name, self._inventory.by_name[line.name].features[names.UNFINISHED])
        try:
            lines = self._make(str(owner), keep_going)
        except QbError:
            self.undo(owner)
            raise
        return [made for line in lines for made in self._files(line, self._begun[line.name])]

    def hurry(self) -> None:
        """For the cleanup after a signal: a host that does not answer must not delay the end."""
        self._host.hurry()

    def undo(self, owner: Mark) -> None:
        """Removes everything that apply() has created for owner."""
        self._undo(list(self._begun), str(owner))

    def settle(self, owner: Mark, good: Mapping[str, bool], keep_failed: bool) -> None:
        """Finishes the domains that apply() has created for owner and that are True in good.

        good: by name on the host. The others are removed, unless keep_failed, together with the domains that need them.
        A domain without the mark of owner is not touched. Failed, after everything else was done, if a domain of the
        plan does not exist, needs a failed one, or cannot be finished or removed; the message names one.
        """
        ours = {line.name for line in self._written if mark_of(self._inventory, line.name) == owner}
        planned = {line.name: line.domain for line in self._written if line.action == CREATE}
        if stranger := next((name for name in good if name not in planned), None):
            raise Damaged(f"the plan creates no domain {stranger}")
        # If every domain failed, this would only repeat the failure.
        problems = [f"{name} was not created" for name in planned if name not in ours and any(good.values())]
        failed = {domain for name, domain in planned.items() if name not in ours or not good.get(name)}
        done: set[str] = set()
        while True:
            found = self._planned(failed, ours)
            problems += self._fallen(found, failed)
            broken = self._first_failure(
                [line for line in found.creates if line.name not in done],
                partial(self._finish, found, done),
            )
            if broken is None:
                break
            failed.add(broken[0].domain)
            problems.append(f"{broken[0].name}: {broken[1].message}")
        self._tell_changes(found)
        if not keep_failed:
            problems += self._undo([name for name in planned if name in ours - done], str(owner))
        if problems:
            raise Failed(f"{problems[0]}{and_more(problems)}")

    def _finish(self, found: Plan, done: set[str], line: PlanLine) -> None:
        self._host.set(line.name, recreate.document(self._archive, found, [line], True, None))
        done.add(line.name)
        self._note(f"{line.name} is complete")

    def _checked(self) -> Plan:
        leftovers = self._host.leftovers(self._inventory)
        found = plan.check(self._archive, self._inventory, self._defaults, AS_WRITTEN, self._written, leftovers)
        found.check()
        if not found.creates:
            raise Refused("the plan creates no domain")
        self._tell_changes(found)
        return found

    def _tell_changes(self, found: Plan) -> None:
        for change in found.changed:
            if change not in self._told:
                self._warn(change)
        self._told.update(found.changed)

    def _planned(self, failed: Set[str], ours: Set[str]) -> Plan:
        """The plan without these domains (names in the archive) and the ones that need them. ours: count as missing."""
        written = [line._replace(action=SKIP) if line.domain in failed else line for line in self._written]
        # A machine whose network failed gets none, rather than another one.
        options = AS_WRITTEN._replace(skip_broken=True, netvm=NO_NETWORK if failed else AS_WRITTEN.netvm)
        leftovers = self._host.leftovers(self._inventory) | ours
        return plan.check(self._archive, self._inventory, self._defaults, options, written, leftovers)

    def _fallen(self, found: Plan, failed: set[str]) -> list[str]:
        """Adds domains to failed that are not created because they need a failed one. Returns a sentence for each."""
        wanted = {line.domain for line in self._written if line.action == CREATE}
        fallen = [line for line in found.lines if not line.created and line.domain in wanted - failed]
        failed.update(line.domain for line in fallen)
        return [f"{line.name}: {line.problem}" for line in fallen]

    def _make(self, mark: str, keep_going: bool) -> list[PlanLine]:
        failed: set[str] = set()
        while True:
            found = self._planned(failed, set())
            for problem in self._fallen(found, failed):
                self._warn(f"not created: {problem}")
            made = {line.name for line in found.creates}
            self._undo([name for name in self._begun if name not in made], mark)
            missing = [line for line in found.creates if line.name not in self._begun]
            broken = self._first_failure(missing, partial(self._create, found, mark))
            broken = broken or self._first_failure(found.creates, partial(self._refer, found, mark))
            if broken is None:
                break
            line, error = broken
            if not keep_going:
                raise error
            self._warn(f"{line.name} is not created: {error.message}")
            failed.add(line.domain)
        if not found.creates:
            raise Failed("no domain could be created")
        self._tell_changes(found)
        return found.creates

    @staticmethod
    def _first_failure(lines: Iterable[PlanLine], act: Callable[[PlanLine], None]) -> tuple[PlanLine, QbError] | None:
        for line in lines:
            try:
                act(line)
            except QbError as error:
                return line, error
        return None

    def _create(self, found: Plan, mark: str, line: PlanLine) -> None:
        self._begun[line.name] = {}
        document = recreate.document(self._archive, found, [line], False, mark)
        targets = dict(self._host.create(document))
        self._given[line.name] = document
        wanted = {volume.name for volume in selection.saved_volumes(self._archive.by_name[line.domain])}
        if lacking := wanted - targets.keys():
            raise Failed(f"the host has created no volume {min(lacking)} for {line.name}")
        self._begun[line.name] = targets
        self._note(f"{line.name} is created")

    def _refer(self, found: Plan, mark: str, line: PlanLine) -> None:
        document = recreate.document(self._archive, found, [line], True, mark)
        if document != self._given.get(line.name):  # most machines name no other
            self._host.set(line.name, document)
            self._given[line.name] = document

    def _undo(self, made: Sequence[str], mark: str) -> list[str]:
        """Removes domains of ours, the last first, and forgets them. Returns a sentence for each failure.

        One of them may belong to another run: then it was the reason why ours could not be created.
        """
        problems = []
        for name in reversed(made):
            try:
                self._host.remove(name, mark)
                self._note(f"{name} is removed")
            except QbError as error:
                problems.append(f"the unfinished domain {name} cannot be removed: {error.message}")
                self._warn(problems[-1])
            with suppress(KeyError):
                del self._begun[name]
        return problems

    def _without_targets(self, found: Plan) -> list[Made]:
        return [made for line in found.creates for made in self._files(line, {})]

    def _files(self, line: PlanLine, targets: Mapping[str, str]) -> list[Made]:
        entries = inventory.entries_of(self._archive.by_name[line.domain])
        return [
            Made(entry.archive_name, line.name, entry.volume, targets.get(entry.volume) if entry.volume else None)
            for entry in entries
        ]


def noted(host: Host, archive: Metadata, found: Plan, warn: Callable[[str], None]) -> Plan:
    """The plan with the warnings of the host about its domains as notes, or with the failure of the host.

    warn: gets the other warnings of the host.
    """
    notes: dict[str, list[str]] = {line.name: [] for line in _asked(found)}
    said: list[str] = []
    failure = None
    try:
        for text in _warnings(host, archive, found):
            name, _colon, note = text.partition(": ")
            if name in notes and note:
                notes[name].append(escape(note))
                said.append(text)
            else:
                warn(text)
    except QbError as error:
        failure = error
    return found._replace(
        failure=failure,
        said=said,
        lines=[
            line._replace(notes=(*line.notes, *notes.get(line.name, ()))) if line.created else line
            for line in found.lines
        ],
    )


def _warnings(host: Host, archive: Metadata, found: Plan) -> Iterator[str]:
    """The warnings of the host about the domains of a plan. Failed if it says that it could not create one of them."""
    for lines in _blocks(_asked(found)):
        yield from host.check(recreate.document(archive, found, lines, False, str(Mark.own())))


def _asked(found: Plan) -> list[PlanLine]:
    """The lines about which the host is asked: those without a problem, and without a leftover, which goes first."""
    return [line for line in found.creates if line.problem is None and not line.leftover]


def _blocks(lines: Sequence[PlanLine]) -> Iterator[Sequence[PlanLine]]:
    """The lines for one call of a host each, so that a document stays far below its limit."""
    for at in range(0, len(lines), _AT_ONCE):
        yield lines[at : at + _AT_ONCE]


def read_results(reader: Reader) -> dict[str, bool]:
    """Lines of domain (its name on the host) and `ok` or `failed`. Damaged for any other line, or a domain twice."""
    found: dict[str, bool] = {}
    for number, fields in read_fields(reader):
        if len(fields) != 2 or fields[1] not in ("ok", "failed") or fields[0] in found:
            raise Damaged(f"line {number} is not a domain and its result, ok or failed")
        found[fields[0]] = fields[1] == "ok"
    return found
