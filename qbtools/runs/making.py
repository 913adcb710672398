"""Restores to a host: makes the plan and asks the user, then creates, fills and finishes (or removes) domains."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from qbtools.domains import inventory, names, plan, selection
from qbtools.domains.inventory import Entry
from qbtools.domains.planlines import Plan, PlanLine, Written
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Damaged, Failed, UsageError
from qbtools.hosts import restoring, results
from qbtools.hosts.client import Host
from qbtools.hosts.restoring import Made, Restore
from qbtools.hosts.results import Result
from qbtools.lean import NamedTuple
from qbtools.runs.checking import CHECK, TREE, check_depth, check_directory
from qbtools.runs.creating import Passages
from qbtools.runs.filling import check_names, routes
from qbtools.runs.opening import Enough, Routes
from qbtools.runs.places import Places, WithoutPlace, check_apart
from qbtools.volumes.marks import Mark

_FILL = ("--overwrite", "--shrink")


class Wishes(NamedTuple):
    """The options of the user for a restore to a host.

    options: for the plan; include and exclude may match dom0, whose home is restored if files_to is given.
    written: reads a plan of the user; None: a plan is made here. verify_only, dry_run, keep_going, keep_failed: as the
    options of these names. only: DOMAIN or DOMAIN:VOLUME; empty: all volumes of the domains.
    """

    options: plan.Options
    written: Callable[[Metadata], Sequence[Written]] | None
    files_to: str | None
    only: Sequence[str]
    verify_only: bool
    dry_run: bool
    keep_going: bool
    keep_failed: bool
    archive: str | None = None

    def wants(self, domain: str, volume: str | None) -> bool:
        """Whether a file of a restored domain is wanted. volume: None for a file that is not a volume."""
        return not any(word.startswith(f"{domain}:") for word in self.only) or (
            domain in self.only or f"{domain}:{volume}" in self.only
        )


class Making:
    """Restores the domains of a plan, from the metadata to the end. show: shows the plan; agreed: asks the user."""

    def __init__(
        self,
        host: Host,
        wishes: Wishes,
        show: Callable[[Plan], None],
        agreed: Callable[[], bool],
        note: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self._host = host
        self._wishes = wishes
        self._show = show
        self._agreed = agreed
        self._note = note
        self._warn = warn
        self._archive: Metadata | None = None
        self._written: Sequence[Written] = ()
        self._made: list[Made] = []
        self._owner = Mark.own()
        self._sizes: dict[str, int | None] = {}
        self._paths: dict[str, str] = {}
        self._passages = Passages()
        self._stray: Damaged | None = None
        self._unwanted: set[str] = set()
        self._lost = False
        self._home_name = ""
        self._further: tuple[str, ...] = ()
        self.without_place = WithoutPlace()
        self.home: str | None = None
        """The target of dom0's home, if it is restored."""
        self.left_out: Sequence[PlanLine] = ()
        """The domains that are not restored because they have a problem."""
        self.unfinished = False
        """Whether domains were created that are neither finished nor removed."""

    def metadata(self, metadata: Metadata) -> Routes:
        entries = inventory.entries(metadata)
        check_names(entries, self._wishes.only)
        home = self._home(metadata)
        alone = self._alone(metadata, home)
        found = Plan([], self._host.inventory()) if alone else self._plan(metadata)
        self._show(found)
        found.check()
        self._check_places(found, entries)
        if self._wishes.dry_run:
            if not alone:
                self._written = [line.written for line in found.lines]
                Restore(self._host, metadata, self._written, self._note, _ignore).needed()
            raise Enough
        self.left_out = found.left_out if self._wishes.options.skip_broken else []
        for line in self.left_out:
            self._warn(f"{line.domain} is left out: {line.problem}")
        if not self._agreed():
            raise Failed("nothing was restored")
        # In an archive of a whole directory, the size of the file is not that of a volume.
        self._sizes = {one.archive_name: one.size for one in entries if not one.archive_name.endswith("/.")}
        self._written = [line.written for line in found.lines]
        self._archive = metadata
        if not alone:
            self._make(metadata, entries)
        return self._routes(home)

    def _make(self, metadata: Metadata, entries: Sequence[Entry]) -> None:
        """Creates the domains of the plan, or checks whether that would be possible."""
        restore = Restore(self._host, metadata, self._written, self._note, self._warn)
        if self._wishes.verify_only:
            self._made = restore.needed()
        else:
            self.unfinished = True
            self._made = restore.apply(self._owner, self._wishes.keep_going)
        domains = {one.archive_name: one.domain for one in entries}
        everything = self._made
        self._made = [made for made in everything if self._is_wanted(domains[made.archive_name], made)]
        wanted = set(self._made)
        self._unwanted = {made.archive_name for made in everything if made.volume is not None and made not in wanted}
        check_apart(self._made)

    def _is_wanted(self, domain: str, made: Made) -> bool:
        wanted = self._wishes.wants(domain, made.volume)
        if not wanted and made.volume is not None:
            self._warn(f"{made.domain}:{made.volume} is not among --only: it stays empty")
        return wanted

    def no_metadata(self, first: str) -> Routes:
        raise Damaged(f"the archive has no qubes.xml: it begins with {first}", "--to restores its files")

    def _home(self, metadata: Metadata) -> str | None:
        """The archive name of dom0's home, if that is restored."""
        include, exclude = self._wishes.options.include, self._wishes.options.exclude
        wanted = not include or any(fnmatchcase(names.ADMIN, pattern) for pattern in include)
        if not wanted or any(fnmatchcase(names.ADMIN, pattern) for pattern in exclude):
            return None
        homes = [entry.archive_name for entry in inventory.entries(metadata) if entry.kind == names.ADMIN_CLASS]
        if not homes and self._only_admin:
            raise UsageError("the archive has no home of dom0", "qb-backup list shows what it has")
        if self._wishes.files_to is None:
            if homes and (self._only_admin or not selection.restorable(metadata)):
                raise UsageError("no target given for the home of dom0", "use --files-to")
            self.without_place.names.extend(homes)
            return None
        if not homes:
            return None
        self._home_name = homes[0]
        self.home = f"{self._wishes.files_to}/{homes[0]}"
        return homes[0]

    def _check_places(self, found: Plan, entries: Sequence[Entry]) -> None:
        """Raises the errors of Places.check(). With --keep-going, a file without a place fails alone, later."""
        wishes = self._wishes
        if wishes.files_to is None or (wishes.keep_going and not wishes.verify_only):
            return
        write = not wishes.verify_only and not wishes.dry_run
        places = Places(wishes.files_to, self.home, found.creates, wishes.archive, write)
        volumes = {one.archive_name for one in entries if one.volume is not None}
        places.check({one.path: one.domain for one in entries}, volumes)

    @property
    def _only_admin(self) -> bool:
        """Whether the user names dom0 and nothing else."""
        include = self._wishes.options.include
        return bool(include) and all(pattern == names.ADMIN for pattern in include)

    def _alone(self, metadata: Metadata, home: str | None) -> bool:
        """Whether only the home is restored."""
        if home is None or self._wishes.written is not None:
            return False
        options = self._domains()
        return self._only_admin or not selection.for_restoring(metadata, options.include, options.exclude, _ignore)

    def _domains(self) -> plan.Options:
        """The options for the plan, without dom0."""
        options = self._wishes.options
        return options._replace(
            include=[word for word in options.include if word != names.ADMIN],
            exclude=[word for word in options.exclude if word != names.ADMIN],
        )

    def _plan(self, metadata: Metadata) -> Plan:
        there, defaults = self._host.inventory(), self._host.defaults()
        self._further = defaults.further
        leftovers = self._host.leftovers(there)
        wishes = self._wishes
        if wishes.written is not None:
            found = plan.check(metadata, there, defaults, wishes.options, wishes.written(metadata), leftovers)
        else:
            found = plan.make(metadata, there, defaults, self._domains(), leftovers, self._warn)
        found = restoring.noted(self._host, metadata, found, self._warn)
        if wishes.verify_only:  # otherwise create() warns too
            for text in found.said:
                self._warn(text)
        goes_on = wishes.keep_going and not wishes.verify_only and not wishes.dry_run
        return found._replace(failure=None) if goes_on else found

    def _routes(self, home: str | None) -> Routes:
        files_to = self._wishes.files_to
        places: dict[str, list[tuple[str, str]]] = {}
        found: dict[str, str] = {}
        for made in self._made:
            path = names.directory_of(made.archive_name)
            self._paths[path] = made.domain
            if made.volume is not None and made.target is not None:
                places.setdefault(made.archive_name, []).append((made.volume, made.target))
            elif made.volume is not None:
                found[made.archive_name] = CHECK
            # A domain without volumes is complete with any other file.
            if files_to is not None and not self._wishes.verify_only:
                found[f"{path}*"] = f"into:{files_to}/{made.domain}"
                found[f"?{path}empty"] = CHECK
            elif files_to is not None or made.volume is None:
                found[f"{path}*"] = TREE
        for path, domain in self._paths.items():
            found.update(self._taken(path, domain))
        if files_to is not None:
            # These must not count as further files.
            found.update((f"?{name}", CHECK) for name in self._unwanted - places.keys())
        if home is not None:
            found[home] = TREE if self._wishes.verify_only else f"into:{files_to}/dom0-home"
        return [*routes(places, lambda _targets: _FILL), *found.items()]

    def _taken(self, path: str, domain: str) -> dict[str, str]:
        """The routes of the further files that the host itself takes back."""
        if not self._further or self._wishes.verify_only:
            return {f"?{path}{name}": TREE for name in self._further}
        places = dict(self._host.files(domain))
        return {f"?{path}{name}": f"into:{os.path.dirname(places[name])}" for name in self._further if name in places}

    def begun(self, name: str) -> None:
        self._passages.begun(name)

    def done(self, name: str, printed: str) -> None:
        if name.endswith("/.") and self._wishes.verify_only:
            volumes = [made.volume for made in self._made if made.volume and made.archive_name == name]
            check_directory(name, volumes, printed)
        size = printed.strip().partition("\t")[0]
        self._passages.done(name, int(size) if size.isdecimal() and not name.endswith("/.") else None)

    def passed(self, name: str) -> None:
        if names.directory_of(name) not in self._paths:
            return
        if self._wishes.files_to is None:
            if name not in self._unwanted:
                self.without_place.add(name)
            return
        try:
            check_depth(name)
        except Damaged as error:
            if not self._wishes.keep_going:
                raise
            self._stray = self._stray or error

    def lost(self, name: str) -> None:
        self._lost = True
        self._passages.failed(name, "failed when it was saved")

    def finish(self) -> None:
        """Called at the end of the archive. Damaged if a file was missing or wrong before."""
        if not self._wishes.only:
            self.without_place.tell(self._warn)
        if self._stray is not None:
            raise self._stray

    def results(self, ended: bool) -> list[Result]:
        """The result for each domain. ended: the run ended without an error."""
        # A file that failed when it was saved is known at the end of a valid archive: the other domains are complete.
        going = self._wishes.keep_going or self._lost
        return results.of_restore(self._made, self._passages.log, self._sizes, ended, going)

    def home_results(self, ended: bool) -> list[Result]:
        """How it went with the home of dom0, if that is restored."""
        if self.home is None:
            return []
        return [results.of_home(names.ADMIN, self._home_name, self._passages.log, ended)]

    def failed_files(self) -> list[str]:
        """The failed files that are not volumes."""
        return results.failed_files(self._made, self._passages.log)

    def hurry(self) -> None:
        """For the cleanup after a signal: a host that does not answer must not delay the end."""
        self._host.hurry()

    def settle(self, found: Sequence[Result]) -> None:
        """Finishes the complete domains and removes the others. Errors as Restore.settle()."""
        if self._archive is None or not self.unfinished:
            return
        good = {result.domain: result.problem is None for result in found}
        # This one reads the host as it is now.
        restore = Restore(self._host, self._archive, self._written, self._note, self._warn)
        restore.settle(self._owner, good, self._wishes.keep_failed)
        self.unfinished = False


def _ignore(_text: str) -> None:
    """Prints nothing, because the plan has the same warnings."""
