"""The snapshots and checkpoints that a series keeps: they tell the next run what has changed, so that it need not read
everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace

from qbtools.commands.cli import Invocation
from qbtools.errors import QbError
from qbtools.hosts.client import Host
from qbtools.hosts.listing import Held
from qbtools.runs.creating import Taken
from qbtools.series import keeping
from qbtools.series.directory import Series
from qbtools.series.keeping import Checkpoint, Keeping, Snapshot
from qbtools.volumes import snapshots
from qbtools.volumes.kind import SourceOptions
from qbtools.volumes.marks import Kept, Mark


def settle(call: Invocation, series: Series) -> None:
    """Releases the snapshots and checkpoints that the series does not need any more. Not to be called in
    Series.locked().

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
                if left := _forget(call, one):
                    keeping.put(series, Keeping(backup_id, (), {}, left))
                    continue
                call.note(f"released the snapshots of {backup_id}")
            keeping.drop(series, backup_id)
        except QbError as error:
            call.warn(f"the snapshots of {backup_id} cannot be released: {error.message}")


def _forget(call: Invocation, kept: Keeping) -> list[Checkpoint]:
    """Removes checkpoints. Returns those that may still exist."""
    left, mark = [], str(Kept(kept.backup_id))
    hosts: dict[str, Host] = {}
    for one in kept.checkpoints:
        try:
            host = hosts[one.host] = hosts.get(one.host) or Host(one.host, call.warn)
            if host.forget(one.domain, mark):
                continue
            call.note(f"the checkpoint {mark} of {one.domain} is removed when its machine runs again")
        except QbError as error:
            call.warn(f"the checkpoint {mark} of {one.domain} cannot be removed: {error.message}")
        left.append(one)
    return left


class Keeper:
    """The snapshots that an archive of a series keeps, and those that its base keeps."""

    def __init__(self, call: Invocation, series: Series, backup_id: str, base: str | None) -> None:
        self._call = call
        self._series = series
        self._keeping = Keeping(backup_id, ())
        self._mark = Kept(backup_id)
        before = None if base is None else keeping.found(series).get(base)
        self._before = before.snapshots if before else {}
        self._base = base
        self._points = before.checkpoints if before else ()
        self._stamps: dict[str, str | QbError] = {}

    def points(self, domain: str) -> tuple[str, str]:
        """The name of the checkpoint to make of a domain, and of that which the base keeps; empty for none.

        It is written down that there may be one.
        """
        one = Checkpoint(domain, self._call.options["--host"])
        base = str(Kept(self._base)) if self._base and one in self._points else ""
        if not self._call.options["--checkpoints"]:
            return "", base
        self._keeping = replace(self._keeping, checkpoints=[*self._keeping.checkpoints, one])
        keeping.put(self._series, self._keeping)
        return str(self._mark), base

    def since(self, name: str, word: str, held: Held | None) -> str:
        """What `qb-volread --since` takes for a volume with this archive name and word, from the host that holds it, or
        else the snapshot that the base keeps.

        Empty, with a note, if there is none, or if somebody has changed it.
        """
        if held is not None and (held.since or held.reason):
            return held.since or self._all(word, held.reason)
        if name not in self._before:
            return self._all(word, "no snapshot of its last state is kept")
        stamp, spec = self._before[name]
        found = self._stamps.pop(spec, None) or snapshots.stamps([spec])[spec]
        if isinstance(found, QbError):
            return self._all(word, found.message)
        if found != stamp:
            return self._all(word, f"the snapshot {spec} was changed")
        return self._all(word, "the name of its snapshot has a tab in it") if "\t" in spec else spec

    def _all(self, word: str, reason: str) -> str:
        self._call.note(f"{word}: everything is read: {reason}")
        return ""

    def take_each(self, sources: Mapping[str, str], how: SourceOptions) -> dict[str, str]:
        """Takes a snapshot of each volume. Returns them by archive name.

        sources: the words of the volumes, by archive name. A volume of which none can be kept, or taken, has none.
        """
        taken: dict[str, str] = {}
        wanted = self._begin(sources, how)
        with suppress(QbError):
            taken = dict(zip(wanted, snapshots.take(list(wanted.values()), self._mark, how), strict=True))
        for name, word in wanted.items() if not taken else ():  # without those that fail
            try:
                (taken[name],) = snapshots.take([word], self._mark, how)
            except QbError as error:
                self._note(word, error)
        kept = self._end(wanted, taken)
        return {name: spec for name, spec in taken.items() if name in kept}

    def take(self, sources: Mapping[str, str], how: SourceOptions, still: AbstractContextManager[None] | None) -> Taken:
        """Takes a snapshot of each volume at one point in time, as creating.take(); those that can be kept are."""
        wanted = self._begin(sources, how)
        others = dict.fromkeys(wanted.values(), self._mark)
        specs = snapshots.take(list(sources.values()), Mark.own(), how, still, others)
        named = dict(zip(sources, specs, strict=True))
        taken = Taken(specs, [spec for name, spec in named.items() if name not in wanted])
        try:
            self._end(wanted, {name: named[name] for name in wanted})
        except BaseException:
            with suppress(QbError):
                snapshots.release(taken.own)
            raise
        return taken

    def _begin(self, sources: Mapping[str, str], how: SourceOptions) -> dict[str, str]:
        """The volumes of which a snapshot can be kept. It is written down that there may be one."""
        if self._call.options["--no-keep"]:
            return {}
        keepable = snapshots.keepable(sources.values(), how)
        wanted = {name: word for name, word in sources.items() if word in keepable}
        places = {name: snapshots.lasting(word) for name, word in wanted.items()}
        wanted = {name: word for name, word in wanted.items() if "\n" not in places[name]}
        if wanted:
            words = [*self._keeping.words, *(places[name] for name in wanted)]
            self._put(words, self._keeping.snapshots)
        return wanted

    def _end(self, wanted: Mapping[str, str], taken: Mapping[str, str]) -> Mapping[str, Snapshot]:
        """Writes down the snapshots that were taken. Returns all that are known."""
        kept = dict(self._keeping.snapshots)
        before = [self._before[name].spec for name in taken if name in self._before]  # since() comes next
        self._stamps = snapshots.stamps([*taken.values(), *before])
        for name, spec in taken.items():
            stamp = self._stamps[spec]
            if isinstance(stamp, QbError):
                self._note(wanted[name], stamp)
            else:
                kept[name] = Snapshot(stamp, spec)
        if wanted:
            self._put(self._keeping.words, kept)
        return kept

    def _put(self, words: Sequence[str], kept: Mapping[str, Snapshot]) -> None:
        self._keeping = replace(self._keeping, words=words, snapshots=kept)
        keeping.put(self._series, self._keeping)

    def _note(self, word: str, error: QbError) -> None:
        self._call.note(f"{word}: no snapshot is kept: {error.message}")
