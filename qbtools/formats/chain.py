"""Chains of archives: a full backup and archives of increments, of which each names its base.

Everything here comes from headers and manifests that were authenticated. So a chain that is accepted consists of
exactly the archives that were sealed for it. The store cannot put other archives in their place.
"""

from __future__ import annotations

from qbtools.errors import Damaged, UsageError
from qbtools.formats import header, manifest
from qbtools.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from qbtools.formats.header import BackupHeader
    from qbtools.formats.manifest import FileRecord

WHOLE = "none"
"""Instead of a base: the volume must be whole."""


class Link(NamedTuple):
    """One archive. label: its name in messages. records: its files by name, without those that failed when saved."""

    label: str
    backup_id: str
    base: header.Base | None
    manifest: str
    """SHA-256 over its sealed manifest, as in header.Base."""

    records: Mapping[str, FileRecord]


def link(label: str, found: BackupHeader, digest: str, records: Iterable[FileRecord]) -> Link:
    """An archive as a link. digest: of its sealed manifest. Damaged if it cannot be one: nothing names it, or nothing
    says that it is complete."""
    if found.version == 3 or not found.manifest or not digest:
        raise Damaged(f"{label} cannot be part of a chain: it has no manifest, or is of version 3")
    return Link(label, found.backup_id, found.base, digest, {one.name: one for one in records if not one.failed})


def order(links: Sequence[Link], at: str | None = None) -> list[Link]:
    """The chain from its full backup to its last archive, or to the one with the backup ID at.

    All links are checked, those that the result does not have too. Damaged if an archive is missing, occurs twice, or
    is no part of the chain. UsageError if there are several last archives and at is None, or no archive has that ID.
    """
    known: dict[str, Link] = {}
    for one in links:
        if one.backup_id in known:
            raise Damaged(f"{known[one.backup_id].label} and {one.label} are both the backup {one.backup_id}")
        known[one.backup_id] = one
    for one in links:
        _check_base(one, known)
    fulls = [one for one in links if one.base is None]
    if len(fulls) > 1:
        names = " and ".join(f"{one.label} ({one.backup_id})" for one in fulls[:2])
        raise Damaged(f"{names} are both full backups: a chain has one")
    for one in links:
        _path(one, known)
    return _path(_last(links, known, at), known)


def _check_base(one: Link, known: Mapping[str, Link]) -> None:
    if one.base is None:
        return
    base = known.get(one.base.backup_id)
    if base is None:
        raise Damaged(f"the backup {one.base.backup_id} is missing: it is the base of {one.label} ({one.backup_id})")
    check_follows(one, base)


def check_follows(one: Link, base: Link) -> None:
    """Damaged if an archive does not follow another one, whose ID it names as its base."""
    if one.base is not None and base.manifest != one.base.manifest:
        raise Damaged(
            f"{base.label} is not the base of {one.label}, but another archive of the backup {base.backup_id}"
        )
    ours = [name for name in one.records if name in base.records]
    theirs = [name for name in base.records if name in one.records]
    for our, their in zip(ours, theirs, strict=True):  # who reads several archives at the same time relies on it
        if our != their:
            raise Damaged(f"{one.label} has {our} where {base.label} has {their}: their order differs")


def _path(one: Link, known: Mapping[str, Link]) -> list[Link]:
    """The chain up to a link."""
    found = [one]
    while (base := found[-1].base) is not None:
        if len(found) == len(known):
            raise Damaged(f"{one.label} ({one.backup_id}) is its own base: no full backup comes before it")
        found.append(known[base.backup_id])
    return found[::-1]


def _last(links: Sequence[Link], known: Mapping[str, Link], at: str | None) -> Link:
    if at is not None:
        if at not in known:
            raise UsageError(f"--at: none of the archives has the backup ID {at}")
        return known[at]
    bases = {one.base.backup_id for one in links if one.base is not None}
    leaves = [one for one in links if one.backup_id not in bases]
    if len(leaves) > 1:
        listed = ", ".join(f"{one.backup_id} ({header.made(one.backup_id) or one.label})" for one in leaves)
        raise UsageError(f"the archives have several last states: {listed}", "--at ID takes one of them")
    return leaves[0]


class Part(NamedTuple):
    """What a link has of a volume. base: what its increment must name, `ID:SHA256`, or WHOLE if it must be whole."""

    place: int
    """In the chain."""

    base: str


def parts(chain: Sequence[Link], name: str) -> list[Part]:
    """What makes the file name as it is in the last archive of the chain, which has it; the oldest comes first.

    Only the inner archives tell whether an increment or a whole volume comes after the first: a whole one makes
    everything before it useless.
    """
    found = []
    for place in reversed(range(len(chain))):
        before = chain[place - 1].records.get(name) if place else None
        if before is None:
            found.append(Part(place, WHOLE))
            break
        found.append(Part(place, f"{chain[place - 1].backup_id}:{manifest.line_digest(before)}"))
    return found[::-1]
