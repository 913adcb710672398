"""The ledger of a series: the archives that are known to be stored, in the order in which their runs began.

    qb-series 1
    place TEXT
    next N
    floor N
    base ID
    full ID
    domain N NAME
    archive N ID BASE BEGUN BYTES MANIFEST STATE FILE
    end SHA256

place: tells whether the file was copied, see place.py. next: the number of the next run. floor: an archive with this
number or a smaller one does not become the base any more. base, full: the base of the next increment, and the last
full archive (- if there is none). domain: the number in `vmN/` of a domain, which no other one ever gets. archive: the
number of its run, its ID, the ID of its base (- for a full one), when it began (seconds since the epoch), the bytes
of its content, the SHA-256 of its manifest, its state, and its file (- if it went to standard output or to a command).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from qbtools.errors import Refused
from qbtools.series import textlines
from qbtools.series.textlines import NONE, Fields

CONFIRMED = "confirmed"
"""The state of an archive that is stored."""

REMOVABLE = "removable"
"""The state of an archive that may be removed from the store, and perhaps was."""

GONE = "gone"
"""The state of an archive that was removed."""

MAX_SIZE = 1 << 26
"""Bytes of the longest ledger."""

_MAGIC = "qb-series 1"
_STATES = (CONFIRMED, REMOVABLE, GONE)


@dataclass(frozen=True)
class Entry:
    """An archive. base: the ID of its base; None: it is a full one. file: None if it is not known."""

    number: int
    backup_id: str
    base: str | None
    begun: int
    size: int
    manifest: str
    file: str | None = None
    state: str = CONFIRMED


@dataclass
class Ledger:
    """The content of a ledger."""

    place: str = NONE
    next: int = 1
    floor: int = 0
    base: str | None = None
    full: str | None = None
    domains: dict[str, int] = field(default_factory=dict)
    archives: dict[str, Entry] = field(default_factory=dict)
    """By their IDs, in ascending order of their numbers."""

    def number_of(self, domain: str) -> int:
        """The number of a domain. A domain without one gets the next number."""
        return self.domains.setdefault(domain, max(self.domains.values(), default=0) + 1)

    def chain(self, backup_id: str) -> list[Entry]:
        """An archive and all that it needs: the full one is the last."""
        found = [self.archives[backup_id]]
        while found[-1].base is not None:
            found.append(self.archives[found[-1].base])
        return found

    def distrust(self) -> None:
        """Forgets the base: the next archive is a full one, and no run that has begun becomes the base."""
        self.base = self.full = None
        self.floor = self.next - 1

    def confirm(self, entry: Entry) -> None:
        """Adds an archive. It becomes the base, unless a run that began later is confirmed already.

        Refused if its base is not stored any more.
        """
        if entry.base is not None:
            base = self.archives.get(entry.base)
            if base is None or base.state != CONFIRMED:
                raise Refused(f"{entry.backup_id} is based on {entry.base}, which is not kept")
        self.archives[entry.backup_id] = entry
        self.archives = dict(sorted(self.archives.items(), key=lambda item: item[1].number))
        if entry.number > self.floor:
            self.floor, self.base = entry.number, entry.backup_id
            if entry.base is None:
                self.full = entry.backup_id

    def mark(self, ids: Iterable[str], state: str) -> None:
        """Changes the state of archives."""
        for backup_id in ids:
            self.archives[backup_id] = replace(self.archives[backup_id], state=state)


def serialise(ledger: Ledger) -> bytes:
    """The text of a ledger."""
    lines = [
        f"place {ledger.place}",
        f"next {ledger.next}",
        f"floor {ledger.floor}",
        f"base {ledger.base or NONE}",
        f"full {ledger.full or NONE}",
        *(f"domain {number} {name}" for name, number in ledger.domains.items()),
    ]
    for entry in ledger.archives.values():
        start = f"archive {entry.number} {entry.backup_id} {entry.base or NONE} {entry.begun} {entry.size}"
        lines.append(f"{start} {entry.manifest} {entry.state} {entry.file or NONE}")
    return textlines.join(_MAGIC, lines)


def parse(data: bytes, name: str) -> Ledger:
    """The ledger with this text. Damaged if it is malformed. name: of its file, for the message."""
    fields = Fields(textlines.split(data, _MAGIC, name), name)
    ledger = Ledger(
        fields.value("place"),
        fields.number(fields.value("next"), 1),
        fields.number(fields.value("floor")),
        fields.id_or_none(fields.value("base")),
        fields.id_or_none(fields.value("full")),
    )
    last = 0
    while (line := fields.maybe("domain")) is not None:
        text, _, domain = line.partition(" ")
        last = fields.number(text, last + 1)
        if not domain or domain in ledger.domains:
            fields.bad()
        ledger.domains[domain] = last
    last = 0
    while (line := fields.maybe("archive")) is not None:
        entry = _entry(line, fields)
        known = entry.base is None or entry.base in ledger.archives
        if not known or not last < entry.number < ledger.next or entry.backup_id in ledger.archives:
            fields.bad()
        last = entry.number
        ledger.archives[entry.backup_id] = entry
    fields.end()
    for backup_id in (ledger.base, ledger.full):
        if backup_id is not None and (
            backup_id not in ledger.archives or ledger.archives[backup_id].state != CONFIRMED
        ):
            fields.bad()
    if ledger.floor >= ledger.next or (ledger.full is not None and ledger.archives[ledger.full].base is not None):
        fields.bad()
    return ledger


def _entry(line: str, fields: Fields) -> Entry:
    parts = line.split(" ", 7)
    if len(parts) != 8 or parts[6] not in _STATES or not parts[7]:
        fields.bad()
    return Entry(
        fields.number(parts[0], 1),
        fields.backup_id(parts[1]),
        fields.id_or_none(parts[2]),
        fields.number(parts[3]),
        fields.number(parts[4]),
        fields.digest(parts[5]),
        None if parts[7] == NONE else parts[7],
        parts[6],
    )
