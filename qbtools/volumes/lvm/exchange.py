"""Gives a volume that was filled under a temporary name its own name, and replaces the volume that had it.

Lvm renames one volume at a time, so an exchange has several steps. After each step the names and tags say what is
still to do, and the next run completes it:

    old is tagged                 qbtools-old:STATE:NAME:MARK; STATE: active or inactive, as it is
    old is deactivated            lvm refuses if anybody has it open
    old gets a temporary name     if killed before this: old gets its name and state back
    new gets NAME                 if killed after this: NAME has MARK, so old is removed
    old is removed
    new loses the tag MARK

Runs in the same group wait for each other. If another program has taken NAME meanwhile, old keeps its temporary name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from qbtools.errors import Failed, QbError, Refused
from qbtools.lean import TYPE_CHECKING
from qbtools.volumes import marks
from qbtools.volumes.lvm import facts, lvnames, snapshot, tools
from qbtools.volumes.lvm.facts import Volume
from qbtools.volumes.lvm.lock import Lock
from qbtools.volumes.marks import Mark

if TYPE_CHECKING:
    from qbtools.volumes.marks import Owner

_OLD = re.compile("qbtools-old:(active|inactive):([^:]+):([^:]+)")
_PATIENCE = 60.0  # seconds that another exchange in the group may take


def is_ours(tag: str) -> bool:
    """Whether a tag is one of ours."""
    return _OLD.fullmatch(tag) is not None or marks.parse(tag) is not None


def mark_of(volume: Volume) -> Owner | None:
    """The mark of a snapshot, or of a volume that an exchange has not finished: a new incomplete one, a renamed or a
    tagged one."""
    return _unfinished(volume) or volume.mark


def _unfinished(volume: Volume) -> Mark | None:
    found = _old(volume)
    if found:
        return found[2]
    return next(filter(None, map(Mark.parse, volume.tags)), None)


def place(group: str, temporary: str, name: str, mark: Mark) -> None:
    """Gives a volume of ours its name. Refused if the name is taken by now."""
    with _lock(group):
        _place(group, temporary, name)
        _untag(f"{group}/{name}", [str(mark)])


def exchange(old: Volume, temporary: str, mark: Mark, warn: Callable[[str], None]) -> None:
    """Gives a volume of ours with a mark the name of old, and removes old.

    It gets the permissions, activation and tags of old. Refused if old is in use, or if another volume has its name by
    now; then old is not touched.
    """
    with _lock(old.group):
        now = facts.group(old.group).get(old.name)
        if now is None:
            _place(old.group, temporary, old.name)
            return _untag(old.full, [str(mark)])
        if now.uuid != old.uuid:
            raise Refused(f"{old.full} was replaced meanwhile", "nothing was written to it")
        _take_over(now, f"{old.group}/{temporary}")
        try:
            state = "active" if now.active else "inactive"
            tools.lvm("lvchange", "-qq", "--addtag", f"qbtools-old:{state}:{old.name}:{mark}", old.full)
            _deactivate(old.full)
            away = marks.temporary_name()
            tools.lvm("lvrename", "-qq", old.group, old.name, away)
            _place(old.group, temporary, old.name)
        except BaseException:
            with suppress(QbError):
                _settle(old.group, mark)
            raise
        try:
            snapshot.remove(f"{old.group}/{away}")
            return _untag(old.full, [str(mark)])
        except Failed as error:
            return warn(f"{old.full} is complete, but the volume that it replaces still exists: {error.message}")


def settle(group: str, mark: Mark) -> None:
    """Completes an exchange whose run died between two steps.

    Failed if this is not possible, because another volume has the name of the renamed one.
    """
    with _lock(group):
        _settle(group, mark)


def repair(volumes: Iterable[Volume], note: Callable[[str], None], warn: Callable[[str], None]) -> bool:
    """settle() for all volumes whose owner is certainly dead. Returns whether there was anything to do."""
    found = {(volume.group, mark) for volume in volumes if (mark := unsettled(volume)) is not None and mark.dead()}
    for group, mark in found:
        note(f"completing the exchange of an ended run in {group}")
        try:
            settle(group, mark)
        except Failed as error:
            warn(f"the exchange of an ended run in {group} cannot be completed: {error.message}")
    return bool(found)


def brought_back(word: str) -> bool:
    """Whether a missing volume `GROUP/NAME` exists now, because an exchange had renamed it.

    Waits for an exchange that is in progress, and completes one of an ended run.
    """
    parts = lvnames.split(word.removeprefix("/dev/"))
    if parts is None or len(parts) != 2:
        return False
    group, name = parts
    try:
        volumes = facts.group(group)
        owners = _put_away(volumes, name)
        if not owners and name not in volumes:
            return False
        if not all(mark.dead() for mark in owners):
            with _lock(group):
                owners = _put_away(facts.group(group), name)
        for mark in owners:
            if mark.dead():
                settle(group, mark)
    except Failed:
        return False
    facts.find.cache_clear()
    return facts.find(word) is not None


def _put_away(volumes: Mapping[str, Volume], name: str) -> set[Mark]:
    """The marks of the exchanges that have renamed a volume of that name."""
    return {found[2] for volume in volumes.values() if (found := _old(volume)) and found[1] == name != volume.name}


def unsettled(volume: Volume) -> Mark | None:
    """The mark of a volume that settle() handles; None for others, which are simply removed."""
    return _unfinished(volume) if _old(volume) or volume.mark is None else None


def _settle(group: str, mark: Mark) -> None:
    volumes = facts.group(group)
    problem: Failed | None = None
    for volume in list(volumes.values()):
        found = _old(volume)
        if not found or found[2] != mark:
            continue
        state, name, _ = found
        holder = volumes.get(name)
        if holder is None or holder is volume:
            if holder is None:
                tools.lvm("lvrename", "-qq", group, volume.name, name)
            _untag(f"{group}/{name}", [tag for tag in volume.tags if _OLD.fullmatch(tag)])
            if state == "active":
                _activate(f"{group}/{name}")
        elif str(mark) in holder.tags:
            snapshot.remove(volume.full)
        else:
            problem = Failed(f"{volume.full} was {group}/{name}, but another volume has that name now")
    for volume in volumes.values():
        if not marks.is_temporary_name(volume.name) and str(mark) in volume.tags:
            _untag(volume.full, [str(mark)])
    if problem is not None:
        raise problem


def _old(volume: Volume) -> tuple[str, str, Mark] | None:
    """State, name and mark from the tag of a renamed volume."""
    for tag in volume.tags:
        match = _OLD.fullmatch(tag)
        mark = Mark.parse(match[3]) if match else None
        if match and mark:
            return match[1], match[2], mark
    return None


def _place(group: str, temporary: str, name: str) -> None:
    try:
        tools.lvm("lvrename", "-qq", group, temporary, name)
    except Failed:
        if name not in facts.group(group):
            raise
        raise Refused(f"{group}/{name} was created meanwhile", "nothing was written to it") from None


def _take_over(old: Volume, new: str) -> None:
    """Sets permission, tags, whether activation skips it, and whether it is active."""
    changes = [word for tag in old.tags if tag and not is_ours(tag) for word in ("--addtag", tag)]
    changes += ["-pr"] if old.read_only else []
    changes += ["-ky"] if old.skipped else []
    if changes:
        tools.lvm("lvchange", "-qq", *changes, new)
    if not old.active:
        tools.lvm("lvchange", "-qq", "-an", new)


def _deactivate(full: str) -> None:
    try:
        tools.lvm("lvchange", "-qq", "-an", full)
    except Failed as error:
        raise Refused(f"{full} is in use: {error.message}") from None


def _activate(full: str) -> None:
    tools.lvm("lvchange", "-qq", "-ay", "-K", full)


def _untag(full: str, tags: list[str]) -> None:
    tools.lvm("lvchange", "-qq", *(word for tag in tags for word in ("--deltag", tag)), full)


def _lock(group: str) -> Lock:
    return Lock(f"group-{group}", _PATIENCE)
