"""Which domains, and which of their volumes, are meant: for saving and for restoring."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from qbtools.domains import names
from qbtools.domains.qubesxml import Domain, Metadata, Volume
from qbtools.errors import UsageError


class LeftOut(NamedTuple):
    """A domain that is not saved, and why."""

    domain: Domain
    reason: str


class Selection(NamedTuple):
    """chosen: the domains to be saved; left_out: all others but dom0. Both in the order of qubes.xml."""

    chosen: list[Domain]
    left_out: list[LeftOut]


def for_saving(metadata: Metadata, named: Sequence[str], include: Sequence[str], exclude: Sequence[str]) -> Selection:
    """The domains of a host that are to be saved.

    Those that are named, whatever else is said. Besides, those with include_in_backups, which match a pattern of
    include (where there is none: all, unless some are named) and none of exclude. Never dom0 unless it is named, and
    no domain that a restore has not finished. UsageError for a name that is not there or in the making, and for a
    pattern of include that matches nothing: a slip of the pen must not leave a domain out.
    """
    for name in named:
        domain = metadata.by_name.get(name)
        if domain is None:
            raise UsageError(f"there is no domain {name}")
        if names.UNFINISHED in domain.features:
            raise UsageError(f"{name} is an unfinished restore")
    others = [domain for domain in metadata.domains if domain.name != names.ADMIN]
    _check_patterns(include, others)
    result = Selection([], [])
    wanted = frozenset(named)
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
    # Qubes OS has it False by default for what removes itself when it stops.
    if not domain.flag("include_in_backups", default=not domain.flag("auto_cleanup")):
        return "include_in_backups is not set"
    return None


def saved_volumes(domain: Domain) -> list[Volume]:
    """Its volumes that are saved: those with save_on_stop. What others hold comes from elsewhere, or is volatile."""
    return [volume for volume in domain.volumes() if volume.save_on_stop]


def restorable(archive: Metadata) -> list[Domain]:
    """The domains that can be restored: the saved ones. Not dom0, of which only the home is in an archive."""
    return [domain for domain in archive.saved() if domain.name != names.ADMIN]


def for_restoring(
    archive: Metadata, include: Sequence[str], exclude: Sequence[str], warn: Callable[[str], None]
) -> set[str]:
    """The names of the domains of an archive that are to be restored: matching include (if any), and no exclude.

    UsageError for a pattern of include that matches none; one of exclude is warned of.
    """
    saved = restorable(archive)
    _check_patterns(include, saved)
    for pattern in exclude:
        if not any(fnmatchcase(domain.name, pattern) for domain in saved):
            warn(f"no domain matches {pattern}")
    return {
        domain.name for domain in saved if (not include or _matches(domain, include)) and not _matches(domain, exclude)
    }


def _matches(domain: Domain, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(domain.name, pattern) for pattern in patterns)


def _check_patterns(patterns: Sequence[str], domains: Sequence[Domain]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(domain.name, pattern) for domain in domains):
            raise UsageError(f"no domain matches {pattern}")
