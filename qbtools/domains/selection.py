"""Selects domains, and their volumes, for saving and for restoring."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from qbtools.domains import names
from qbtools.domains.qubesxml import Domain, Metadata, Volume
from qbtools.errors import UsageError
from qbtools.lean import NamedTuple


class LeftOut(NamedTuple):
    """A domain that is not saved, and the reason."""

    domain: Domain
    reason: str


class Selection(NamedTuple):
    """chosen: the domains to be saved; left_out: all others except dom0. Both in the order of qubes.xml."""

    chosen: list[Domain]
    left_out: list[LeftOut]


def for_saving(metadata: Metadata, named: Sequence[str], include: Sequence[str], exclude: Sequence[str]) -> Selection:
    """The domains of a host to save. A domain from libvirt may be named by its other_name.

    Named domains are always saved. In addition, domains with include_in_backups are saved if they match a pattern of
    include (without include: all, unless domains are named) and none of exclude. dom0 is only saved if it is named.
    An unfinished restore is never saved. UsageError for a name that does not exist or is an unfinished restore, and for
    a pattern of include that matches nothing, because a typing error must not leave a domain out.
    """
    wanted = set()
    for name in named:
        domain = metadata.named(name)
        if domain is None:
            raise UsageError(f"there is no domain {name}")
        if names.UNFINISHED in domain.features:
            raise UsageError(f"{name} is an unfinished restore")
        wanted.add(domain.name)
    others = [domain for domain in metadata.domains if domain.name != names.ADMIN]
    _check_patterns(include, others)
    result = Selection([], [])
    for domain in metadata.domains:
        if domain.name in wanted:
            result.chosen.append(domain)
        elif domain.name != names.ADMIN:
            reason = _why_not(domain, bool(named), include, exclude)
            if reason is None:
                result.chosen.append(domain)
            else:
                result.left_out.append(LeftOut(domain, reason))
    return result


def _why_not(domain: Domain, some_named: bool, include: Sequence[str], exclude: Sequence[str]) -> str | None:
    if names.UNFINISHED in domain.features:
        return "an unfinished restore"
    if not _matches(domain, include) and (include or some_named):
        return "not named"
    if _matches(domain, exclude):
        return "excluded"
    # In Qubes OS the default is False for domains that are removed when they stop.
    if not domain.flag("include_in_backups", default=not domain.flag("auto_cleanup")):
        return "include_in_backups is not set"
    return None


def saved_volumes(domain: Domain) -> list[Volume]:
    """Its volumes that are saved: those with save_on_stop. Other volumes belong to a template or are volatile."""
    return [volume for volume in domain.volumes() if volume.save_on_stop]


def restorable(archive: Metadata) -> list[Domain]:
    """The domains that can be restored: the saved ones except dom0, of which an archive has only the home."""
    return [domain for domain in archive.saved() if domain.name != names.ADMIN]


def for_restoring(
    archive: Metadata, include: Sequence[str], exclude: Sequence[str], warn: Callable[[str], None]
) -> set[str]:
    """The names of the domains of an archive to restore: they match include (if given), and no pattern of exclude.

    UsageError if a pattern of include matches none; a warning if a pattern of exclude does.
    """
    saved = restorable(archive)
    _check_patterns(include, saved)
    for pattern in exclude:
        if not any(_matches(domain, [pattern]) for domain in saved):
            warn(f"no domain matches {pattern}")
    return {
        domain.name for domain in saved if (not include or _matches(domain, include)) and not _matches(domain, exclude)
    }


def _matches(domain: Domain, patterns: Iterable[str]) -> bool:
    names_of = [name for name in (domain.name, domain.other_name) if name is not None]
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names_of)


def _check_patterns(patterns: Sequence[str], domains: Sequence[Domain]) -> None:
    for pattern in patterns:
        if not any(_matches(domain, [pattern]) for domain in domains):
            raise UsageError(f"no domain matches {pattern}")
