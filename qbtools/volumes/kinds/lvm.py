"""Volumes that are logical volumes, thin or thick. qbtools/volumes/lvm reads and writes them."""

from __future__ import annotations

import os
import stat

from qbtools.errors import QbError, Refused, UsageError
from qbtools.lean import TYPE_CHECKING, suppress
from qbtools.volumes.kind import Kind, Source, SourceOptions, Target, TargetOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qbtools.volumes.marks import Owner
    from qbtools.volumes.spots import Spot


class LogicalVolumeKind(Kind):
    """Logical volumes. All can have snapshots, except classic snapshots."""

    scheme = "lvm"
    narrows = "block"

    def exists(self, word: str) -> bool:
        """Asks lvm, but only if the word looks like a name that lvm could know."""
        if not _may_be_known(word):
            return False
        from qbtools.volumes.lvm import exchange, facts

        return facts.find(word) is not None or exchange.brought_back(word)

    def could_be_made(self, word: str) -> bool:
        if "/" not in word or os.path.lexists(word) or not _may_be_known(word):
            return False
        from qbtools.volumes.lvm import target

        return target.could_be_made(word)

    def sizes(self, name: str, options: SourceOptions) -> tuple[int, int]:
        from qbtools.volumes.lvm import source

        return source.sizes(name, options)

    def open_source(self, name: str, options: SourceOptions) -> Source:
        from qbtools.volumes.lvm import source

        return source.open_source(name, options)

    def spot(self, name: str) -> Spot:
        from qbtools.volumes.lvm import target

        return target.spot(name)

    def complete(self, name: str) -> bool:
        from qbtools.volumes.lvm import target

        found = target.present(name)
        return found is not None and (found.thin or super().complete(found.path))

    def open_target(self, name: str, options: TargetOptions) -> Target:
        from qbtools.volumes.lvm import target

        return target.open_target(name, options)

    def prepare(self, names: Sequence[str], mark: Owner, options: SourceOptions) -> Callable[[], list[str]]:
        from qbtools.volumes.lvm import facts, snapshot, source

        if options.state == "current":
            raise UsageError("the current state of a volume is not a snapshot")
        groups = facts.Groups()
        wanted = [source.to_be_taken(name, options, groups) for name in names]

        def take() -> list[str]:
            made: list[str] = []
            try:
                for volume in wanted:
                    made.append(snapshot.take(volume, mark, options.cow))
            except BaseException:
                for full in made:
                    with suppress(QbError):
                        snapshot.remove(full)
                raise
            return [f"{self.scheme}:{full}" for full in made]

        return take

    def take(self, names: Sequence[str], mark: Owner, options: SourceOptions) -> list[str]:
        return self.prepare(names, mark, options)()

    def keepable(self, names: Sequence[str], options: SourceOptions) -> list[str]:
        from qbtools.volumes.lvm import facts, source

        groups, found = facts.Groups(), []
        for name in names if options.state != "current" else ():
            with suppress(QbError):
                if source.to_be_taken(name, options, groups).thin:
                    found.append(name)
        return found

    def stamps(self, names: Sequence[str]) -> dict[str, str | QbError]:
        from qbtools.volumes.lvm import thindelta

        return thindelta.stamps(names)

    def marked(self, places: Sequence[str]) -> Iterator[tuple[str, Owner]]:
        from qbtools.volumes.lvm import exchange, facts, tools

        if not tools.installed("lvs"):
            return
        seen = set()  # release() of one volume completes everything that its run has begun in the group
        for volume in facts.everywhere():
            mark = exchange.mark_of(volume)
            whole = volume.full if exchange.unsettled(volume) is None else (volume.group, mark)
            if mark is not None and whole not in seen:
                seen.add(whole)
                yield f"{self.scheme}:{volume.full}", mark

    def release_all(self, specs: Sequence[str]) -> None:
        from qbtools.volumes.lvm import facts, snapshot

        groups, ours, others = facts.Groups(), [], []
        for spec in specs:
            try:
                volume, _group = groups.volume(spec.removeprefix(f"{self.scheme}:"))
            except QbError:
                others.append(spec)
                continue
            if volume.mark is None or volume.full in ours:
                others.append(spec)
            else:
                ours.append(volume.full)
        try:
            snapshot.remove_all(ours)
        finally:
            super().release_all(others)

    def release(self, spec: str) -> None:
        from qbtools.volumes.lvm import exchange, facts, snapshot

        volume, _group = facts.volume(spec.removeprefix(f"{self.scheme}:"))
        unsettled = exchange.unsettled(volume)
        if volume.mark is not None:
            snapshot.remove(volume.full)
        elif unsettled is not None and unsettled.dead():
            exchange.settle(volume.group, unsettled)
        elif unsettled is not None:
            raise Refused(f"{spec} belongs to a run that may still be active")
        else:
            raise Refused(f"{spec} has no mark of qbtools")


def _may_be_known(word: str) -> bool:
    """Whether to ask lvm: the word is a device of the device mapper, or not a path but a possible name in lvm."""
    try:
        found = os.stat(word)
    except (OSError, ValueError):
        return word.startswith("/dev/") or (word.count("/") in (1, 2) and not word.startswith(("/", ".")))
    place = f"/sys/dev/block/{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}/dm"
    return stat.S_ISBLK(found.st_mode) and os.path.exists(place)


KIND = LogicalVolumeKind()
