"""Volumes that are vdi images. qbtools/volumes/qemu reads them."""

from __future__ import annotations

from qbtools.volumes.qemu.imagekind import ImageKind

KIND = ImageKind("vdi")
