"""Volumes that are qcow2 images. qbtools/volumes/qemu reads and writes them."""

from __future__ import annotations

import os

from qbtools.errors import UsageError
from qbtools.lean import TYPE_CHECKING
from qbtools.volumes import spots
from qbtools.volumes.kind import SourceOptions, Target, TargetOptions
from qbtools.volumes.qemu import creation
from qbtools.volumes.qemu.imagekind import ImageKind

if TYPE_CHECKING:
    from qbtools.volumes.spots import Spot


class Qcow2Kind(ImageKind):
    """qcow2 images: the only ones that can be written. A target is `PATH,KEY=VALUE,…`."""

    takes_options = True

    def spot(self, name: str) -> Spot:
        return spots.of_file(self.path(name))

    def path(self, name: str) -> str:
        return name if os.path.lexists(name) else creation.split(name)[0]

    def sizes(self, name: str, options: SourceOptions) -> tuple[int, int]:
        """name may be the word of a target."""
        return super().sizes(self.path(name), options)

    def complete(self, name: str) -> bool:
        return super().complete(self.path(name))

    def open_target(self, name: str, options: TargetOptions) -> Target:
        from qbtools.volumes.qemu.target import Qcow2Target

        path = self.path(name)
        if path.endswith("/") or os.path.isdir(path):
            raise UsageError(f"{path} is a directory, not an image")
        if os.path.exists(path) and not os.path.isfile(path):
            raise UsageError(f"{path} is not a regular file")
        behind = creation.split(name)[1] if path != name else ""
        how = creation.parse(",".join(filter(None, (behind, options.create_options))))
        return Qcow2Target(f"{self.scheme}:{path}", path, options, how)


KIND = Qcow2Kind("qcow2")
