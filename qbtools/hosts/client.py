"""Runs a host, the program qb-host-NAME (see qb-host(7)), and reads its output, within bounds."""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from qbtools.domains import defaults, names, safexml
from qbtools.domains.defaults import Defaults
from qbtools.domains.lines import read_fields
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Damaged, Failed, UsageError
from qbtools.hosts import calls, listing, unsaved
from qbtools.hosts.listing import Contents, Held, HostVolume, is_word
from qbtools.hosts.unsaved import Unsaved
from qbtools.streams import Reader
from qbtools.volumes.marks import Mark

MAX_LINES = 64 << 20
"""The most bytes of lines that a verb may print."""

CLEANUP = 10.0
"""Seconds for a verb after a signal. What it does not do until then is left to the next run."""

VERBS = ("inventory", "volumes", "files", "create", "set", "remove", "defaults", "verbs")
"""The verbs that every host must know."""

FREEZE, THAW = "freeze", "thaw"
HOLD, RELEASE, FORGET = "hold", "release", "forget"
UNSAVED = "unsaved"
CHECK = "check"
CONTENTS = "contents"

_WORD = re.compile(r"([a-z][a-z0-9]*(?:-[a-z0-9]+)*):(.*)", re.DOTALL)
_LATER = "later"
_AT_ONCE = 500  # domains
_CHECKPOINT, _BASE = "QB_CHECKPOINT", "QB_CHECKPOINT_BASE"
_NO_SETTINGS: Mapping[str, str] = {}

_Parsed = TypeVar("_Parsed")


class Host:
    """A host, which owns domains on this machine. Each method: Failed, with the host and the verb, if the host fails or
    prints invalid output.

    The names of domains must have been checked.
    """

    def __init__(
        self, word: str, warn: Callable[[str], None] = lambda _: None, settings: Mapping[str, str] = _NO_SETTINGS
    ) -> None:
        """word: `NAME:ARGUMENT` for the program qb-host-NAME, or the path of a directory. warn: gets its warnings, each
        once. settings: more variables for its environment.

        ARGUMENT may be empty: the program decides whether it has a default.

        The program is searched for in the directory of the running program, then in PATH. UsageError if there is none.
        """
        match = _WORD.fullmatch(word)
        name, argument = match.groups() if match else ("dir", word)
        if not word or argument.startswith("-"):
            raise UsageError(f"{word} is not a host", "write NAME:ARGUMENT, or a directory; a path may begin with ./")
        if not argument.isprintable():
            raise UsageError(f"the host {word} has characters in its name that are not allowed")
        self.word = word
        self._program = f"qb-host-{name}"
        self._argv = [calls.find(self._program, name), argument]
        self._warn = warn
        self._settings = settings
        self._limit: float | None = None
        self._hangs = False
        self._verbs: frozenset[str] | None = None
        self._told: set[str] = set()

    def hurry(self, seconds: float = CLEANUP) -> None:
        """From now on a call that takes longer has failed, and so have all calls after it."""
        self._limit = seconds

    def inventory(self) -> Metadata:
        """The metadata of all its domains."""
        return self._ask("inventory", parse=lambda reader: Metadata(safexml.load(reader)), limit=safexml.MAX_SIZE)

    def volumes(self, domain: str) -> list[HostVolume]:
        """The volumes that belong to a domain alone."""
        return self._ask("volumes", domain, parse=listing.volumes)

    def files(self, domain: str) -> list[tuple[str, str]]:
        """Further files of a domain: the name below its path in the archive (or `dom0-home/USER`), and its path."""
        return self._ask("files", domain, parse=listing.files)

    def contents(self, domains: Sequence[str]) -> dict[str, Contents]:
        """What volumes() and files() return for these domains. Those that the host does not list are missing."""
        found: dict[str, Contents] = {}
        for at in range(0, len(domains) if CONTENTS in self.verbs() else 0, _AT_ONCE):
            asked = "".join(f"{name}\n" for name in domains[at : at + _AT_ONCE]).encode()
            with suppress(Failed):  # then each domain is asked for, which tells the reason
                found.update(self._ask(CONTENTS, parse=listing.contents, document=asked))
        return found

    def create(self, document: bytes) -> list[tuple[str, str]]:
        """Creates a domain with new volumes. Returns the target for qb-volwrite by the name of each volume."""
        return self._ask("create", parse=_targets, document=document)

    def check(self, document: bytes) -> list[str]:
        """Failed if create() would fail for one of the domains in the document. Does nothing if it cannot tell.

        Returns its warnings, which are not told.
        """
        said: list[str] = []
        if CHECK in self.verbs():
            self._ask(CHECK, parse=_nothing, document=document, tell=said.append)
        return said

    def set(self, domain: str, document: bytes) -> None:
        """Sets everything in the document for an unfinished domain, except its volumes."""
        self._ask("set", domain, parse=_nothing, document=document)

    def remove(self, domain: str, mark: str) -> None:
        """Removes an unfinished domain and everything that belongs to it, if it has that mark.

        Does nothing if there is none, or if another run is creating it.
        """
        self._ask("remove", domain, mark, parse=_nothing)

    def defaults(self) -> Defaults:
        """Its defaults."""
        return self._ask("defaults", parse=defaults.read)

    def verbs(self) -> frozenset[str]:
        """The verbs that it knows."""
        if self._verbs is None:
            self._verbs = self._ask("verbs", parse=_verbs)
        return self._verbs

    def unsaved(self) -> list[Unsaved]:
        """The things of all domains that no run saves; empty if the host cannot list them."""
        return self._ask(UNSAVED, parse=unsaved.read) if UNSAVED in self.verbs() else []

    def freezer(self) -> str | None:
        """Shell text to which `freeze DOMAIN` or `thaw DOMAIN` is added to freeze or thaw a machine.

        None if the host cannot do that.
        """
        return shlex.join(self._argv) if {FREEZE, THAW} <= self.verbs() else None

    def holds(self) -> bool:
        """Whether the host can hold volumes while they are read."""
        return {HOLD, RELEASE} <= self.verbs()

    def forgets(self) -> bool:
        """Whether the host can make checkpoints when it holds a domain."""
        return FORGET in self.verbs()

    def hold(self, domain: str, mark: str, checkpoint: str = "", base: str = "") -> dict[str, Held]:
        """Makes the present state of all volumes of a domain readable until release().

        checkpoint: the name of one to make of this state; base: of the one since which the changes are wanted. Returns
        how each volume is read, by its name.
        """
        settings = {name: word for name, word in ((_CHECKPOINT, checkpoint), (_BASE, base)) if word}
        return self._ask(HOLD, domain, mark, parse=listing.held, settings=settings)

    def release(self, domain: str, mark: str) -> list[str]:
        """Ends hold(). Does nothing if there is no such domain, or if another run holds it.

        Returns its warnings, which are told too.
        """
        said: list[str] = []
        self._ask(RELEASE, domain, mark, parse=_nothing, tell=said.append)
        for line in said:
            self._tell(line)
        return said

    def forget(self, domain: str, checkpoint: str) -> bool:
        """Removes a checkpoint that hold() has made, if it exists. Returns whether it is gone; if not, it must be tried
        again later."""
        return self._ask(FORGET, domain, checkpoint, parse=_forgotten)

    def leftovers(self, inventory: Metadata | None = None) -> frozenset[str]:
        """The names of its domains that an ended restore has left unfinished. inventory: if it is known already."""
        found = self.inventory() if inventory is None else inventory
        return frozenset(
            domain.name for domain in found.domains if (mark := mark_of(found, domain.name)) and mark.dead()
        )

    def _ask(
        self,
        verb: str,
        *words: str,
        parse: Callable[[Reader], _Parsed],
        document: bytes | None = None,
        limit: int = MAX_LINES,
        tell: Callable[[str], None] | None = None,
        settings: Mapping[str, str] = _NO_SETTINGS,
    ) -> _Parsed:
        data = self._run([verb, *words], document, limit, tell or self._tell, settings)
        try:
            return parse(Reader(io.BytesIO(data), "its output"))
        except Damaged as error:
            raise Failed(f"{self._named(verb, *words)}: {error.message}", error.hint) from error

    def _named(self, *words: str) -> str:
        return f"{self._program} {self._argv[1]} {' '.join(words)}"

    def _run(
        self,
        words: list[str],
        document: bytes | None,
        limit: int,
        tell: Callable[[str], None],
        settings: Mapping[str, str],
    ) -> bytes:
        if self._hangs:
            raise Failed(f"{self._named(*words)} is not run, because the host does not answer")
        answer = calls.run(
            [*self._argv, *words], document, limit, self._limit, self._named(*words), {**self._settings, **settings}
        )
        if answer is None:
            self._hangs = True
            raise Failed(f"{self._named(*words)} has not ended after {self._limit:g} seconds")
        if len(answer.data) > limit:
            raise Failed(f"{self._named(*words)} prints more than {limit} bytes")
        said = [line.strip() for line in answer.said.splitlines() if line.strip()]
        for line in self._judged(words, answer.status, said):
            tell(line)
        return answer.data

    def _judged(self, words: list[str], status: int, said: list[str]) -> list[str]:
        """Its warnings."""
        hint = said.pop().removeprefix("hint: ") if said and said[-1].startswith("hint: ") else None
        own = re.compile(rf"{re.escape(self._program)}: (?:error|warning): ")
        lines = [own.sub("", line) for line in said]
        if status:
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            raise Failed(f"{self._named(*words)}: {lines[-1] if lines else how}", hint)
        return lines

    def _tell(self, warning: str) -> None:
        if warning not in self._told:
            self._told.add(warning)
            self._warn(warning)


def mark_of(inventory: Metadata, name: str) -> Mark | None:
    """The owner of an unfinished domain; None for any other domain, or if the owner is not known."""
    domain = inventory.by_name.get(name)
    return None if domain is None else Mark.parse(domain.features.get(names.UNFINISHED, ""))


def _targets(reader: Reader) -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    for number, fields in read_fields(reader):
        if len(fields) != 2 or names.volume_problem(fields[0]) or not is_word(fields[1]) or fields[0] in found:
            raise Damaged(f"line {number} is not a volume and its target")
        found[fields[0]] = fields[1]
    return list(found.items())


def _forgotten(reader: Reader) -> bool:
    lines = [fields for _number, fields in read_fields(reader)]
    if lines not in ([], [[_LATER]]):
        raise Damaged(f"it prints something else than {_LATER}")
    return not lines


def _verbs(reader: Reader) -> frozenset[str]:
    found = frozenset(fields[0] for _number, fields in read_fields(reader))
    if not found.issuperset(VERBS):
        raise Damaged(f"it does not know {min(set(VERBS) - found)}")
    return found


def _nothing(reader: Reader) -> None:
    if not reader.at_eof():
        raise Damaged("it prints something, but no output is allowed")
