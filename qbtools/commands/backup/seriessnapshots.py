"""The snapshots that a series keeps: they tell the next run what has changed, so that it need not read everything."""

from __future__ import annotations

from collections.abc import Mapping

from qbtools.commands.cli import Invocation
from qbtools.errors import QbError
from qbtools.series import keeping
from qbtools.series.directory import Series
from qbtools.series.keeping import Keeping, Snapshot
from qbtools.volumes import snapshots
from qbtools.volumes.kind import SourceOptions
from qbtools.volumes.marks import Kept


def settle(call: Invocation, series: Series) -> None:
    """Releases the snapshots that the series does not need any more. Not to be called in Series.locked().

    What cannot be released gives a warning, and the next run tries it again.
    """
    if not keeping.found(series):
        return
    with series.locked() as ledger:
        found = keeping.found(series)
        needed = keeping.needed(series, ledger)
    for backup_id, one in found.items():
        if backup_id in needed:
            continue
        try:
            if one is None:
                call.warn(f"it is not known which snapshots {backup_id} keeps: qb-snapshot list shows them")
            else:
                specs = [kept.spec for kept in one.snapshots.values()]
                snapshots.release_kept([*one.words, *specs], Kept(backup_id))
                call.note(f"released the snapshots of {backup_id}")
            keeping.drop(series, backup_id)
        except QbError as error:
            call.warn(f"the snapshots of {backup_id} cannot be released: {error.message}")


def take(
    call: Invocation, series: Series, backup_id: str, sources: Mapping[str, str], how: SourceOptions
) -> dict[str, str]:
    """Takes the snapshots that an archive keeps. Returns them by the archive names of their volumes.

    sources: the words of the volumes, by their archive names. A volume of which none can be kept, or taken, has none.
    """
    if call.options["--no-keep"]:
        return {}
    wanted = {name: word for name, word in sources.items() if "\n" not in word and snapshots.can_keep(word, how)}
    if not wanted:
        return {}
    keeping.put(series, Keeping(backup_id, list(wanted.values())))
    taken: dict[str, Snapshot] = {}
    for name, word in wanted.items():
        try:
            (spec,) = snapshots.take([word], Kept(backup_id), how)
            taken[name] = Snapshot(snapshots.stamp(spec), spec)
        except QbError as error:
            call.note(f"{word}: no snapshot is kept: {error.message}")
    keeping.put(series, Keeping(backup_id, list(wanted.values()), taken))
    return {name: one.spec for name, one in taken.items()}


def since(call: Invocation, series: Series, base: str | None, names: Mapping[str, str]) -> dict[str, str]:
    """The snapshots that the archive base keeps, by the archive names of the volumes.

    names: the words of the volumes, by these names. What somebody has changed is left out, with a note.
    """
    if base is None:
        return {}
    one = keeping.found(series).get(base)
    kept = one.snapshots if one else {}
    found = {}
    for name, word in names.items():
        if name not in kept:
            call.note(f"{word}: everything is read: no snapshot of its last state is kept")
            continue
        stamp, spec = kept[name]
        try:
            if snapshots.stamp(spec) != stamp:
                call.note(f"{word}: everything is read: the snapshot {spec} was changed")
            elif "\t" in spec:
                call.note(f"{word}: everything is read: the name of its snapshot has a tab in it")
            else:
                found[name] = spec
        except QbError as error:
            call.note(f"{word}: everything is read: {error.message}")
    return found
