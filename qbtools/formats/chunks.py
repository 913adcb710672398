"""Chunks: their names, their order, and the passphrase that binds each of them to its place.

A compressed inner archive called NAME (vm1/private.img) is cut into pieces of chunk-size; piece n is sealed into the
member NAME.%03d.enc of the outer archive. A chunk of exactly chunk-size is always followed by another one. A shorter
chunk ends its file. Source of every rule: the qb-format(5) page, "Chunks".
"""

from __future__ import annotations

from qbtools.errors import Damaged, Refused, Truncated
from qbtools.lean import TYPE_CHECKING, Pattern

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_CHUNK_SIZE = 104857600
"""Bytes of data in a chunk: 100 MiB. Qubes uses this size, and its restore expects no smaller one."""

METADATA = "qubes.xml"
"""The file with the metadata of the domains. It is one chunk, and the first one."""

MANIFEST = "qb-manifest"
"""The last file of an archive. It is one chunk."""

HEADER = "backup-header"
HEADER_MAC = "backup-header.hmac"

OVERHEAD = 128
"""Bytes that a sealed member has in addition to its data: the header (96) and the last MAC (32) of the container."""

MAX_CHUNK_SIZE = 8**11 - 1 - OVERHEAD
"""Bytes of data in the largest chunk. Its sealed size must fit in the octal digits of a tar header."""

MAX_METADATA = (1 << 20) - OVERHEAD
"""Maximum bytes of the compressed metadata: Qubes reads 1 MiB of the sealed member."""

MAX_MANIFEST = 24 << 20
"""Maximum bytes of the manifest: MAX_FILES of its longest lines fit."""

NO_MANIFEST = "the archive has no manifest: files that are missing at its end cannot be detected"
"""The warning for an archive that does not promise one."""

MAX_FILES = 1 << 16
"""Maximum files in one archive. Limits the memory for the names of a hostile archive: at most 800 bytes each."""

MAX_DIRECTORY = 138
MAX_BASE = 88
"""Maximum bytes of a name's directory and of its last component. The outer member and the sparse inner member then
both fit in ustar."""

MAX_NUMBER = 9_999_999
"""The last chunk number with which a name of MAX_BASE bytes fits in ustar (950 TiB at the default chunk size)."""

_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.@+-")
_MEMBER = Pattern(r"(.+)\.([0-9]{3}|[1-9][0-9]{3,6})\.enc")
_RESERVED = (HEADER, MANIFEST)


def path_problem(path: str, final_dot: bool = False) -> str | None:
    """The problem of path as a relative path of harmless components, or None.

    final_dot: the last component may be `.` (in archives of version 3 this is a complete directory).
    """
    components = path.split("/")
    for at, component in enumerate(components):
        if component == "." and final_dot and 0 < at == len(components) - 1:
            continue
        if component in ("", ".", "..") or component[0] == "-" or not _LETTERS.issuperset(component):
            return "not a relative path of letters, digits and _ . @ + -"
    return None


def name_problem(name: str, final_dot: bool = False) -> str | None:
    """The problem of name as the name of a file in an archive, or None. final_dot as for path_problem."""
    directory, _, base = name.rpartition("/")
    if len(directory) > MAX_DIRECTORY or len(base) > MAX_BASE:
        return f"longer than {MAX_DIRECTORY} bytes of directory and {MAX_BASE} of last component"
    if name in _RESERVED:
        return "a reserved name"
    return path_problem(name, final_dot)


def member_name(name: str, number: int) -> str:
    """The member of the outer archive that holds chunk number of the file name. 0 <= number <= MAX_NUMBER.

    Refused for a larger number.
    """
    if number > MAX_NUMBER:
        raise Refused(f"{name} has more than {MAX_NUMBER + 1} chunks", "use a larger --chunk-size")
    return f"{name}.{number:03d}.enc"


def parse_member(untrusted_member: str) -> tuple[str, int]:
    """File and chunk number of a member; the file may be MANIFEST. Damaged if it is not the name of a chunk."""
    if untrusted_member in (HEADER, HEADER_MAC):
        raise Damaged(f"a second {untrusted_member}: a file holds one archive")
    match = _MEMBER.fullmatch(untrusted_member)
    if not match:
        raise Damaged(f"{untrusted_member}: not the name of a chunk")
    name, number = match[1], int(match[2])
    problem = None if name == MANIFEST else name_problem(name)
    if problem:
        raise Damaged(f"{untrusted_member}: {problem}")
    return name, number


def header_passphrase(passphrase: bytes) -> bytes:
    """The passphrase that seals backup-header.hmac."""
    return b"backup-header!" + passphrase


def chunk_passphrase(passphrase: bytes, backup_id: str, name: str, number: int) -> bytes:
    """The passphrase that seals a chunk of the file name. It binds the chunk to its backup, its file and its place."""
    return f"{backup_id}!{name}.{number:03d}!".encode("ascii") + passphrase


def member_bound(member: str, chunk_size: int | None, max_chunk: int = DEFAULT_CHUNK_SIZE) -> int:
    """The maximum bytes of a sealed member.

    chunk_size: of the authenticated header. None if it has none (archives of Qubes): then max_chunk is used.
    """
    largest = max_chunk if chunk_size is None else chunk_size
    if member == f"{MANIFEST}.000.enc":
        largest = MAX_MANIFEST
    elif member == f"{METADATA}.000.enc" and chunk_size is not None:
        largest = MAX_METADATA
    return largest + OVERHEAD


class FileOrder:
    """Checks the order of the files in an archive.

    No name occurs twice. METADATA can only be the first. All files of a domain follow each other: these are all files
    below one top directory. GNU tar and Qubes stop reading a directory when another one begins. legacy: version 3, in
    which the directory of a domain is one level deeper (appvms/NAME).
    """

    def __init__(self, legacy: bool = False) -> None:
        self._legacy = legacy
        self._names: set[str] = set()
        self._left: set[str] = set()
        self._directory = ""

    @property
    def count(self) -> int:
        """The number of files so far."""
        return len(self._names)

    def problem(self, name: str) -> str | None:
        """Adds name as the next file. Returns its problem, or None. Refused if there are more than MAX_FILES."""
        if name in self._names:
            return "occurs twice"
        if name == METADATA and self._names:
            return "is not the first file"
        if len(self._names) >= MAX_FILES:
            raise Refused(f"more than {MAX_FILES} files in one archive")
        directory = name.rpartition("/")[0]
        if not self._legacy:
            directory = directory.partition("/")[0]
        if directory != self._directory:
            if directory in self._left:
                return f"comes back to the directory {directory} after another one"
            if self._directory:
                self._left.add(self._directory)
            self._directory = directory
        self._names.add(name)
        return None


class Order:
    """Checks that the chunks of an archive are in the order of the format, one after the other.

    chunk_size: of the authenticated header, or None (archives of Qubes). manifest: the header promises a manifest at
    the end; otherwise METADATA must exist. legacy: version 3.
    """

    def __init__(
        self, chunk_size: int | None, manifest: bool, warn: Callable[[str], None], legacy: bool = False
    ) -> None:
        self._chunk_size = chunk_size
        self._manifest = manifest
        self._warn = warn
        self._suffix = "" if legacy else ".enc"
        self._files = FileOrder(legacy)
        self._due = 0
        self._last = -1
        self.name = ""
        """The file that is being read; empty before the first."""
        self.broken: dict[str, Damaged] = {}
        """The error of each file that ended without its last chunk, by the name of the file. It is not an error if the
        manifest says that the file failed when it was saved. Empty if no manifest is promised: then chunk() raises."""

    @property
    def ended(self) -> bool:
        """True if the current file is known to be complete: its last chunk was shorter than chunk-size."""
        if self.name in (METADATA, MANIFEST):
            return True
        return self._chunk_size is not None and 0 <= self._last < self._chunk_size

    @property
    def manifest_seen(self) -> bool:
        """True if the manifest was read."""
        return self.name == MANIFEST

    def chunk(self, name: str, number: int, size: int) -> None:
        """Adds the next chunk, with size bytes of data (the size of the member minus OVERHEAD).

        Damaged if it is out of place; Refused if there are more than MAX_FILES. Warns if the end of a file of Qubes
        cannot be recognised. If the file before is incomplete, see broken.
        """
        member = f"{name}.{number:03d}{self._suffix}"
        if self.manifest_seen:
            raise Damaged(f"{member} comes after the manifest")
        if size < 0:
            raise Damaged(f"{member} is too short for a sealed chunk")
        if name != self.name:
            self._end_file()
            self._start_file(name, member)
        elif self.ended:
            raise Damaged(f"{member} comes after the last chunk of its file")
        if number != self._due:
            due = f"{name}.{self._due:03d}{self._suffix}"
            raise Damaged(f"{member} comes where {due} is due: a chunk is missing, doubled or out of place")
        if self._chunk_size is not None and size > self._chunk_size and name not in (METADATA, MANIFEST):
            raise Damaged(f"{member} is longer than a chunk of {self._chunk_size} bytes")
        self._due += 1
        self._last = size

    def finish(self) -> None:
        """The archive ends here. Truncated if the last file is incomplete, or the manifest or metadata is missing."""
        try:
            self._end_file()
            if self.name in self.broken:
                raise self.broken[self.name]
        except Damaged as error:
            raise Truncated(error.message) from None
        if self._manifest and not self.manifest_seen:
            raise Truncated("the manifest is missing: the archive is incomplete")
        if not self._manifest and not self._files.count:
            raise Truncated(f"{METADATA} is missing")

    def _start_file(self, name: str, member: str) -> None:
        if not self._manifest and not self._files.count and name != METADATA:
            raise Damaged(f"{member} comes where {METADATA}.000{self._suffix} is due")
        problem = None if name == MANIFEST else self._files.problem(name)
        if problem:
            raise Damaged(f"{member}: the file {problem}")
        self.name, self._due, self._last = name, 0, -1

    def _end_file(self) -> None:
        """The current file has no further chunk."""
        if not self.name or self.ended:
            return
        if self._chunk_size is not None:
            error = Damaged(f"{self.name} is incomplete: its chunk {self._due:03d} is missing")
            if not self._manifest:
                raise error
            self.broken[self.name] = error
        if self._last == DEFAULT_CHUNK_SIZE:
            self._warn(f"{self.name} ends with a full chunk: this archive does not show whether it is complete")
