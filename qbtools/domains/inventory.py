"""The content of an archive according to qubes.xml, as lines that are safe in a shell script."""

from __future__ import annotations

from qbtools import amounts
from qbtools.domains import names
from qbtools.domains.qubesxml import Domain, Metadata
from qbtools.errors import Damaged
from qbtools.lean import NamedTuple

NONE = "-"
"""Means no volume, or an unknown size."""


class Entry(NamedTuple):
    """One file that must be in the archive. Every text in it is checked: no blank, no `..`, no leading `-`.

    volume: None for a file that is not a volume: `vmQID/empty` of a domain without volumes, `dom0-home/USER`.
    archive_name: of a template of Qubes OS 2 to 3.2 `PATH/.`, an archive of its directory with VOLUME.img of each.
    size: bytes of the whole volume, None if it is not known.
    """

    domain: str
    kind: str
    volume: str | None
    archive_name: str
    size: int | None

    @property
    def path(self) -> str:
        """The directory of its domain's files: `vmQID/`, or `dom0-home/USER` itself."""
        if self.kind == names.ADMIN_CLASS:
            return self.archive_name
        return names.directory_of(self.archive_name)

    @property
    def label(self) -> str:
        """DOMAIN:VOLUME for messages; only DOMAIN for a file that is not a volume."""
        alone = self.volume is None or self.archive_name.endswith("/.")
        return self.domain if alone else f"{self.domain}:{self.volume}"

    def to_line(self) -> str:
        """DOMAIN, CLASS, VOLUME, ARCHIVE-NAME and SIZE, separated by tabs, with newline."""
        size = NONE if self.size is None else str(self.size)
        return "\t".join((self.domain, self.kind, self.volume or NONE, self.archive_name, size)) + "\n"

    @classmethod
    def from_fields(cls, fields: list[str]) -> Entry:
        """The entry of a line that to_line wrote. Damaged for anything else."""
        if len(fields) != 5:
            raise Damaged("not the five fields of a volume")
        domain, kind, untrusted_volume, untrusted_name, untrusted_size = fields
        if problem := names.domain_problem(domain) or names.class_problem(kind):
            raise Damaged(problem)
        volume = None if untrusted_volume == NONE else untrusted_volume
        if volume is not None and (problem := names.volume_problem(volume)):
            raise Damaged(problem)
        path = names.directory_of(untrusted_name)
        base = untrusted_name[len(path) :]
        if kind == names.ADMIN_CLASS:
            good = volume is None and names.is_home(untrusted_name)
        else:
            good = names.is_older_path(path) and base in (_base(volume), _WHOLE if volume else None)
        if not good:
            raise Damaged(f"not the name of a file of {domain}: {untrusted_name}")
        size = names.number(untrusted_size)
        if size is None and untrusted_size != NONE:
            raise Damaged(f"not a size in bytes: {untrusted_size}")
        return cls(domain, kind, volume, untrusted_name, size)


_WHOLE = "."


def _base(volume: str | None) -> str:
    return "empty" if volume is None else f"{volume}.img"


def entries_of(domain: Domain) -> list[Entry]:
    """The files of one domain: one for each saved volume, or the one for no volume. [] if it is not saved."""
    if domain.path is None:
        return []
    if domain.kind == names.ADMIN_CLASS:
        return [Entry(domain.name, domain.kind, None, domain.path, None)]
    found = [
        Entry(
            domain.name,
            domain.kind,
            volume.name,
            domain.path + (_WHOLE if domain.whole else _base(volume.name)),
            volume.size,
        )
        for volume in domain.volumes()
        if volume.save_on_stop
    ]
    return found or [Entry(domain.name, domain.kind, None, domain.path + _base(None), 0)]


def entries(metadata: Metadata) -> list[Entry]:
    """The files of all saved domains, in the order of qubes.xml."""
    return [entry for domain in metadata.saved() for entry in entries_of(domain)]


def table(metadata: Metadata) -> list[str]:
    """The files as a table for a person."""
    rows = [("domain", "class", "volume", "size", "name in the archive")]
    for entry in entries(metadata):
        size = NONE if entry.size is None else amounts.amount(entry.size)
        rows.append((entry.domain, entry.kind, entry.volume or NONE, size, entry.archive_name))
    return amounts.table(rows, ("size",))


def as_document(metadata: Metadata) -> dict[str, object]:
    """The same for JSON. An unknown size is null, and so is the volume of a file that is not a volume."""
    return {
        "domains": [
            {
                "name": domain.name,
                "class": domain.kind,
                "path": domain.path,
                "files": [
                    {"volume": entry.volume, "archive_name": entry.archive_name, "size": entry.size}
                    for entry in entries_of(domain)
                ],
            }
            for domain in metadata.saved()
        ]
    }
