"""Disk images by their path. They have no words without the scheme: a plain path is the file, not the disk in it."""

from __future__ import annotations

import os

from qbtools.errors import OtherPython, Refused, UsageError
from qbtools.lean import TYPE_CHECKING
from qbtools.volumes import spots
from qbtools.volumes.kind import Source, SourceOptions, Target, TargetOptions
from qbtools.volumes.snapshotless import SnapshotlessKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qbtools.volumes.marks import Owner
    from qbtools.volumes.spots import Spot


class ImageKind(SnapshotlessKind):
    """Images of one format, which can be read."""

    noun = "an image"

    def __init__(self, scheme: str) -> None:
        self.scheme = scheme

    def exists(self, word: str) -> bool:
        return False

    def could_be_made(self, word: str) -> bool:
        return False

    def sizes(self, name: str, options: SourceOptions) -> tuple[int, int]:
        self.check_state(name, options)
        with self.open_source(name, options._replace(state="current")) as source:
            return source.size, source.extents().data

    def open_source(self, name: str, options: SourceOptions) -> Source:
        from qbtools.volumes.qemu.source import ImageSource

        self.check_state(name, options)
        return ImageSource(name, self.scheme, options)

    def path(self, name: str) -> str:
        return name

    def spot(self, name: str) -> Spot:
        return spots.of_file(name)

    def open_target(self, name: str, options: TargetOptions) -> Target:
        raise UsageError(f"{self.scheme}: images of this kind can only be read", "qcow2:PATH writes an image")

    def complete(self, name: str) -> bool:
        """An image gets its name when it is complete."""
        return os.path.isfile(name)

    def prepare(self, names: Sequence[str], mark: Owner, options: SourceOptions) -> Callable[[], list[str]]:
        """Each snapshot is a clone of the image. The files below it are shared, because no machine writes to them."""
        from qbtools.volumes.files import lasting

        if options.state not in (None, "snapshot"):
            raise UsageError(f"a snapshot of an image has the state snapshot, not {options.state}")
        clones = [lasting.Clone(name) for name in names]

        def take() -> list[str]:
            from qbtools.volumes.qemu.source import ImageSource

            sources: list[ImageSource] = []  # while they are open, no machine starts
            try:
                for name in names:
                    sources.append(ImageSource(name, self.scheme, options._replace(state=None)))
                    sources[-1].check_alone()
                return [f"{self.scheme}:{path}" for path in lasting.taken(clones, mark)]
            except OtherPython as error:  # only a stage starts again; it can read the image itself
                raise Refused(error.message, error.hint) from error
            finally:
                for each in sources:
                    each.close()

        return take

    def take(self, names: Sequence[str], mark: Owner, options: SourceOptions) -> list[str]:
        return self.prepare(names, mark, options)()

    def release(self, spec: str) -> None:
        from qbtools.volumes.files import lasting

        lasting.release(spec, spec.removeprefix(f"{self.scheme}:"))

    def no_snapshots(self, name: str) -> Refused:
        return Refused(
            f"{self.scheme}:{name} is an image, which is locked while it is read",
            "qb-snapshot takes a snapshot of it on btrfs and xfs",
        )
