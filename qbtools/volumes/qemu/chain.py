"""Decides from which files an image is read, before QEMU opens any of them.

An image is not trusted: a guest that was given a plain file as its disk can write the header of an image into it, and
name any file of the host there. So QEMU never follows a name. We read the headers, open the files, check them, and tell
QEMU the whole chain, by descriptors. The rules:

- All files are regular files. A name with a protocol (`nbd://…`, `json:…`) is refused.
- A backing file is a qcow2 image or a raw file, as the image says. If it does not say which, it is refused: the first
  bytes of a raw file would decide.
- A raw file is in the directory of the image that names it, or below it. Any file can be read as raw.
- Images in the other formats have no parent, and need no other file.
"""

from __future__ import annotations

import os
import stat

from qbtools.errors import Damaged, Refused, UsageError, naming
from qbtools.formats import magic
from qbtools.volumes.files import images

MOST = 64
"""The files of the longest chain."""

_CORRUPT, _DATA_FILE = 2, 4  # features that a reader must know
_EXTENSION_FORMAT, _EXTENSION_DATA_FILE = 0xE2792ACA, 0x44415441
_ENCRYPTIONS = {1: "AES", 2: "LUKS"}
_LONGEST = 1023  # bytes of the longest name
_VMDK_CAPACITY = slice(12, 20)


class Chain:
    """The open files of an image, the image first. A context manager, which closes them.

    node: the words that describe the image to QEMU, with the places of the files in `fds` as descriptors from first on.
    """

    def __init__(self, path: str, kind: str, first: int) -> None:
        """path: of an image of this kind. first: the descriptor that QEMU gets the first file as.

        UsageError if it is not a regular file, Failed if it cannot be opened, Damaged if it is not such an image.
        Refused if it is encrypted, or if a rule above forbids a file.
        """
        self.fds: list[int] = []
        self.headers: list[Header | None] = []
        """Of each of fds: its header, if it is a qcow2 image."""
        self.size = 0
        """The bytes of the disk, if its header was read."""
        self.has_data_file = False
        """Whether an image of the chain has its data in another file."""
        self._first = first
        self._seen: set[tuple[int, int]] = set()
        try:
            with naming(f"open {path}"):
                if not stat.S_ISREG(os.stat(path).st_mode):
                    raise UsageError(f"{path} is not a regular file")
            self.node = self._image(path, kind)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Chain:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        while self.fds:
            os.close(self.fds.pop())

    def _open(self, path: str) -> tuple[int, str]:
        """Opens a further file. Returns its descriptor, and the words for QEMU."""
        if len(self.fds) >= MOST:
            raise Refused(f"{path}: the chain of backing files has more than {MOST} files")
        with naming(f"open {path}"):
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)  # to open a device may already have an effect
            try:
                found = os.fstat(place)
                if not stat.S_ISREG(found.st_mode):
                    raise Refused(f"{path} is not a regular file: an image is only read from regular files")
                fd = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC)
            finally:
                os.close(place)
        self.fds.append(fd)
        self.headers.append(None)
        if (found.st_dev, found.st_ino) in self._seen:
            raise Damaged(f"{path} is its own backing file")
        self._seen.add((found.st_dev, found.st_ino))
        number = self._first + len(self.fds) - 1
        return fd, f'{{"driver":"file","filename":"/proc/self/fd/{number}"}}'

    def _image(self, path: str, kind: str) -> str:
        fd, file = self._open(path)
        with naming(f"read {path}"):
            head = os.pread(fd, magic.HEAD, 0)
        if magic.kind(head) != kind:
            raise Damaged(f"{path} is not a {kind} image", "a plain image is a file: file:PATH")
        if kind == "qcow2":
            return self._qcow2(path, fd, file)
        if needs := images.needs(fd, kind, head):
            raise Refused(f"{path} is a {kind} image that needs another file: {needs}", images.CONVERT)
        if kind == "vmdk" and not any(head[_VMDK_CAPACITY]):
            raise Refused(f"{path} is a vmdk image that needs another file: its data is there", images.CONVERT)
        return f'{{"driver":"{kind}","file":{file}{self._no_backing(kind)}}}'

    @staticmethod
    def _no_backing(kind: str) -> str:
        return ',"backing":null' if kind == "vmdk" else ""

    def _qcow2(self, path: str, fd: int, file: str) -> str:
        with naming(f"read {path}"):
            header = Header(path, os.pread(fd, 1 << 21, 0))
        self.headers[-1] = header
        if not self.size:
            self.size = header.size
        more = ""
        if header.needs_data_file:
            self.has_data_file = True
            name = self._beside(path, header.data_file, "data file")
            more += f',"data-file":{self._raw(path, name)}'
        if header.backing is None:
            more += ',"backing":null'
        else:
            name = self._beside(path, header.backing, "backing file")
            if header.backing_format == "qcow2":
                more += f',"backing":{self._image(name, "qcow2")}'
            elif header.backing_format == "raw":
                more += f',"backing":{{"driver":"raw","file":{self._raw(path, name)}}}'
            elif header.backing_format is None:
                raise Refused(
                    f"{path} does not say which format its backing file has, and guessing is not safe",
                    f"qemu-img rebase -u -F FORMAT -b {_shown(header.backing)} writes it into the image",
                )
            else:
                raise Refused(f"{path} has a backing file in the format {header.backing_format}", images.CONVERT)
        return f'{{"driver":"qcow2","file":{file}{more}}}'

    @staticmethod
    def _beside(path: str, name: bytes, what: str) -> str:
        """The path of a file that the image at path names."""
        text = os.fsdecode(name)
        if not name or b"\0" in name or ":" in text.partition("/")[0]:
            raise Refused(f"{path} names the {what} {_shown(name)}, which is not the path of a file", images.CONVERT)
        return os.path.join(os.path.dirname(path), text)

    def _raw(self, image: str, path: str) -> str:
        place = os.path.realpath(os.path.dirname(image) or ".")
        if os.path.commonpath((place, os.path.realpath(path))) != place:
            raise Refused(
                f"{image} names the raw file {path}, which is not in its directory: it may be any file of this host",
                images.CONVERT,
            )
        return self._open(path)[1]


class Header:
    """What the header of a qcow2 image says."""

    def __init__(self, path: str, head: bytes) -> None:
        """head: the first bytes of the image. Damaged if it breaks a rule. Refused if it is encrypted or too new."""
        self._head = head
        version = self._number(4, 4)
        if version not in (2, 3) or len(head) < 104:
            raise Damaged(f"{path} has no valid qcow2 header")
        self.size = self._number(24, 8)
        encryption = self._number(32, 4)
        if encryption:
            how = _ENCRYPTIONS.get(encryption, "an unknown method")
            raise Refused(
                f"{path} is encrypted ({how}): the disk cannot be read without its key",
                "file:PATH saves the image as it is, encrypted",
            )
        features = self._number(72, 8) if version > 2 else 0
        if features & _CORRUPT:
            raise Damaged(f"{path} is marked as corrupt", "qemu-img check shows what is wrong with it")
        length = self._number(100, 4) if version > 2 else 72
        cluster = self._number(20, 4)
        if not 9 <= cluster <= 21 or not 72 <= length <= 1 << cluster or self.size > (1 << 63) - 512:
            raise Damaged(f"{path} has no valid qcow2 header")
        at, count = self._number(8, 8), self._number(16, 4)
        if at and (not 0 < count <= _LONGEST or at + count > len(head)):
            raise Damaged(f"{path} has no valid name of its backing file")
        self.backing = head[at : at + count] if at else None
        extensions = self._extensions(length, min(at or len(head), 1 << cluster))
        found = extensions.get(_EXTENSION_FORMAT)
        self.backing_format = None if found is None else found.decode("ascii", "replace")
        self.cluster = 1 << cluster
        """The bytes of a cluster."""
        self.tables = self._number(40, 8), self._number(36, 4)
        """Where the list of its tables is: the offset in the file, and the number of entries, of 8 bytes each."""
        self.needs_data_file = bool(features & _DATA_FILE)
        self.data_file = extensions.get(_EXTENSION_DATA_FILE, b"")

    def _number(self, at: int, length: int) -> int:
        return int.from_bytes(self._head[at : at + length], "big")

    def _extensions(self, at: int, end: int) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        while at + 8 <= end and (kind := self._number(at, 4)):
            count = self._number(at + 4, 4)
            found[kind] = self._head[at + 8 : min(at + 8 + count, end)]
            at += 8 + -(-count // 8) * 8
        return found


def _shown(name: bytes) -> str:
    return os.fsdecode(name) or "''"
