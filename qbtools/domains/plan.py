"""Makes a restore plan from an archive and a host, and checks a plan that a person has changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from qbtools.domains import names, renaming, roles, selection
from qbtools.domains.defaults import Defaults
from qbtools.domains.hostside import HostSide
from qbtools.domains.outcome import Outcome
from qbtools.domains.planlines import CREATE, Plan, Written
from qbtools.domains.qubesxml import Domain, Metadata
from qbtools.domains.rows import Names, Row, reference, wants_of
from qbtools.domains.verifier import KEEP, NAME, NONE, Missing, Verifier
from qbtools.errors import Damaged, Refused, UsageError
from qbtools.lean import NamedTuple

NETVM_CHOICES = (names.DEFAULT, NONE, KEEP)


class Options(NamedTuple):
    """The options of the user.

    include, exclude: patterns of names in the archive. rename: new names by those in the archive, or other_name.
    default_template: the replacement for a missing template: names.DEFAULT (the host's), `none`, or the name of one on
    the host. netvm: the same for a network: one of NETVM_CHOICES; `keep` allows no replacement.
    no_rename: generate no name if one is taken; for domains in rename this always holds.
    skip_broken: leave out domains that cannot be created. ignore_missing: create domains without what is missing.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    rename: Mapping[str, str] = {}
    default_template: str = names.DEFAULT
    netvm: str = names.DEFAULT
    no_rename: bool = False
    skip_broken: bool = False
    ignore_missing: bool = False


AS_WRITTEN = Options(default_template=NONE, netvm=KEEP)
"""For a plan that is carried out: only the templates and networks that it names."""


def make(
    archive: Metadata,
    host: Metadata,
    defaults: Defaults,
    options: Options,
    leftovers: Collection[str] = (),
    warn: Callable[[str], None] = lambda _: None,
) -> Plan:
    """A plan for the saved domains of archive. Domains that are not selected are in it as skipped.

    leftovers: domains on the host that an ended run has left unfinished; they count as missing.
    UsageError if options name something that does not exist, or select nothing. Refused if there is nothing to select.
    """
    side = HostSide(host, defaults, leftovers)
    missing = _missing(side, options)
    selected = selection.for_restoring(archive, options.include, options.exclude, warn)
    if not selected and not selection.restorable(archive):
        raise Refused("the archive has no domain that can be restored", "qb-backup list shows what it has")
    if not selected:
        raise UsageError("no saved domain is selected")
    options = options._replace(rename=_renames(options.rename, archive, selected, side))
    domains = sorted(selection.restorable(archive), key=roles.rank)
    # New names that the user chose come first, names that are only shown come last.
    order = sorted(domains, key=lambda one: 0 if one.name in options.rename else 1 if one.name in selected else 2)
    asked = {domain.name: options.rename.get(domain.name, domain.name) for domain in order}
    # A name that the user chose is never changed to another.
    fixed = asked if options.no_rename else options.rename
    given = renaming.assign(asked, side.taken, fixed, defaults.without)
    rows = []
    for domain in domains:
        name = given[domain.name]
        row = _row(domain, name or asked[domain.name], domain.name in selected, wants_of(domain))
        problem = side.name_problem(asked[domain.name])
        if row.chosen and name is None:
            row.refusals[NAME] = f"name: {row.name}: {problem}" if problem else f"name: {row.name} is taken"
        elif row.chosen and problem:
            warn(f"{asked[domain.name]} will be called {name}: {problem}")
        rows.append(row)
    planned = {row.domain.name: row for row in rows}
    known = Names(planned.get, side.find)
    return _verified(rows, side, missing, known, options)


def check(
    archive: Metadata,
    host: Metadata,
    defaults: Defaults,
    options: Options,
    written: Sequence[Written],
    leftovers: Collection[str] = (),
) -> Plan:
    """The same for a plan that was read: its content is kept, the rest is found again.

    Names in it are those on the host, or otherwise those in the archive. A domain of the plan or the archive that will
    not exist is replaced as in make(), and `changed` of the plan says so. A name that does not exist anywhere else, or
    of a domain that cannot be used, is a problem. No name is generated; include, exclude, rename and no_rename have no
    effect. Domains that are not in written are not in the plan.
    Damaged if written names a domain twice, or one that is not saved.
    """
    side = HostSide(host, defaults, leftovers)
    saved = {domain.name: domain for domain in selection.restorable(archive)}
    rows: dict[str, Row] = {}
    for line in written:
        if line.domain not in saved:
            raise Damaged(f"the archive has no saved domain {line.domain}")
        if line.domain in rows:
            raise Damaged(f"the domain {line.domain} occurs twice")
        wants = {roles.TEMPLATE: line.template, roles.NETVM: line.netvm, roles.DISPVM: line.default_dispvm}
        row = _row(saved[line.domain], line.name, line.action == CREATE, wants)
        row.kernel = line.kernel
        rows[line.domain] = row
    ordered = sorted(rows.values(), key=lambda row: roles.rank(row.domain))
    planned = {row.name: row for row in ordered}
    planned.update(_check_names([row for row in ordered if row.chosen], side, planned))

    def find(name: str) -> Row | None:
        # If only the name of a domain was changed, references to the old name follow.
        return planned.get(name) or (None if name in side.taken else rows.get(name))

    known = Names(find, side.find, True, lambda name: name in planned or name in archive.by_name)
    return _verified(ordered, side, _missing(side, options), known, options, written)


def _row(domain: Domain, name: str, chosen: bool, wants: dict[str, str | None]) -> Row:
    return Row(domain, name, chosen, wants, reference(domain, "kernel"))


def _check_names(rows: Sequence[Row], side: HostSide, planned: Collection[str]) -> dict[str, Row]:
    """The rows by their names on the host; refuses names that are taken."""
    found: dict[str, Row] = {}
    used = side.taken | set(planned)
    for row in rows:
        if row.name in side.taken or row.name in found:
            where = "on the host" if row.name in side.taken else "twice in the plan"
            free = renaming.free_name(row.name, used, side.name_problem)
            hint = f"; {free} is free" if free else ""
            row.refusals[NAME] = f"name: {row.name} is taken, {where}{hint}"
        elif problem := side.name_problem(row.name):
            row.refusals[NAME] = f"name: {row.name}: {problem}"
        found.setdefault(row.name, row)
    return found


def _missing(side: HostSide, options: Options) -> Missing:
    name = options.default_template
    if name not in (names.DEFAULT, NONE):
        found = side.find(name)
        if found is None or found.kind != roles.TEMPLATE_CLASS:
            raise UsageError(f"the host has no template {name}")
    return Missing(name, options.netvm, options.ignore_missing)


def _renames(rename: Mapping[str, str], archive: Metadata, selected: Collection[str], side: HostSide) -> dict[str, str]:
    """The new names by the names in the archive, of which rename may also have other_name."""
    found: dict[str, str] = {}
    for old, name in rename.items():
        domain = archive.named(old)
        if domain is None or domain.name not in selected:
            raise UsageError(f"cannot rename {old}: it is not among the domains to be restored")
        if problem := side.name_problem(name):
            raise UsageError(f"{old} cannot be renamed to {name}: {problem}")
        if found.setdefault(domain.name, name) != name:
            raise UsageError(f"{old} cannot be renamed to {name}: it is already renamed to {found[domain.name]}")
    return found


def _verified(
    rows: Sequence[Row],
    side: HostSide,
    missing: Missing,
    known: Names,
    options: Options,
    written: Sequence[Written] = (),
) -> Plan:
    Verifier(rows, side, missing, known).run()
    outcome = Outcome(rows, side, options.skip_broken)
    lines = [outcome.line(row) for row in rows]
    before = {line.domain: line for line in written}
    changed = [
        f"{line.domain}: {column} {old or NONE} → {new or NONE}"
        for line in lines
        if line.created and line.domain in before
        for column, old, new in zip(Written._fields, before[line.domain], line.written, strict=True)
        if old != new
    ]
    return Plan(lines, side.metadata, changed)
