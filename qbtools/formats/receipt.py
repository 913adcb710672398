"""The receipt of an archive: a small text that identifies it, and that is kept in another place. It needs no key.

    qb-receipt 1
    backup-id ID
    header SHA256
    manifest SHA256
    content SHA256
    bytes N
    end

header: over the contents of `backup-header` and `backup-header.hmac`. manifest: over the content of the manifest's
member. content: over all members except the wrapped passphrases and the signature: for each its name, a NUL, the
decimal number of its bytes, a NUL, and its content. bytes: the sum of those numbers. All SHA-256 are lower-case
hexadecimal. If the passphrase of the archive is wrapped for other recipients, the receipt stays the same.
"""

from __future__ import annotations

import hashlib

from qbtools.errors import Damaged, Refused
from qbtools.formats import chunks, header, keymembers
from qbtools.formats.beginning import header_digest
from qbtools.lean import NamedTuple

MAX_SIZE = header.MAX_SIZE + 512
"""Bytes of the longest receipt: the longest backup ID, and the longest values of the other fields."""

_MAGIC = "qb-receipt 1"
_NAMES = ("backup-id", "header", "manifest", "content", "bytes")
_MAX_BYTES = (1 << 63) - 1
_HEXADECIMAL = frozenset("0123456789abcdef")
_HEADER = (chunks.HEADER, chunks.HEADER_MAC)
_MANIFEST = chunks.member_name(chunks.MANIFEST, 0)


class Receipt(NamedTuple):
    """The values of a receipt. The digests are 64 lower-case hexadecimal digits."""

    backup_id: str
    header: str
    manifest: str
    content: str
    size: int

    def check_header(self, untrusted_plain: bytes, untrusted_sealed: bytes) -> None:
        """Compares the header of an archive, and its sealed copy, with the receipt.

        Refused for the archive of another backup. Damaged for any other header, and for a malformed one.
        """
        found = header.parse(untrusted_plain)
        if found.version == 3:
            raise Refused("the archive has version 3, which has no receipt")
        if found.backup_id != self.backup_id:
            raise Refused(f"the archive has the backup ID {found.backup_id}, not {self.backup_id} as the receipt says")
        if header_digest(untrusted_plain, untrusted_sealed) != self.header:
            raise Damaged("the header of the archive differs from the receipt")

    def check_manifest(self, digest: str) -> None:
        """Compares the manifest of an archive with the receipt. Damaged if they differ."""
        if digest != self.manifest:
            raise Damaged("the manifest of the archive differs from the receipt")

    def check(self, found: Receipt) -> None:
        """Compares found, the receipt made from a complete archive, with this one. Damaged if they differ.

        The header is compared before.
        """
        if found.size != self.size:
            raise Damaged(f"the archive has {found.size} bytes of content, not {self.size} as the receipt says")
        self.check_manifest(found.manifest)
        if found.content != self.content:
            raise Damaged("the content of the archive differs from the receipt")


def serialise(receipt: Receipt) -> bytes:
    """The text of a receipt."""
    values = (receipt.backup_id, receipt.header, receipt.manifest, receipt.content, receipt.size)
    lines = (f"{name} {value}" for name, value in zip(_NAMES, values, strict=True))
    return "".join(f"{line}\n" for line in (_MAGIC, *lines, "end")).encode("ascii")


def parse(data: bytes, name: str = "the receipt") -> Receipt:
    """The receipt with this text. Damaged if the text is not exactly in the format. name: its name in messages."""
    if len(data) > MAX_SIZE:
        raise Damaged(f"{name} is no receipt: it has more than {MAX_SIZE} bytes")
    lines = data.decode("ascii", "replace").split("\n")
    if lines[0] != _MAGIC:
        raise Damaged(f"{name} is no receipt of version 1")
    if lines[-2:] != ["end", ""]:
        raise Damaged(f"{name} is incomplete: it does not end with the line `end`")
    if len(lines) != len(_NAMES) + 3:
        raise Damaged(f"{name} has {len(lines) - 1} lines, not {len(_NAMES) + 2}")
    values = []
    for number, (word, line) in enumerate(zip(_NAMES, lines[1:], strict=False), 2):
        found, _, value = line.partition(" ")
        if found != word or not _good(word, value):
            raise Damaged(f"{name} is malformed in line {number}, where `{word}` must be")
        values.append(value)
    backup_id, head, manifest, content, size = values
    return Receipt(backup_id, head, manifest, content, int(size))


def _good(word: str, value: str) -> bool:
    if word == "backup-id":
        return header.backup_id_problem(value) is None
    if word == "bytes":
        digits = value.isascii() and value.isdecimal() and len(value) <= len(str(_MAX_BYTES))
        return digits and value == str(int(value)) and int(value) <= _MAX_BYTES
    return len(value) == 64 and _HEXADECIMAL.issuperset(value)


class ContentDigest:
    """Makes the receipt of an archive from its members, in order, while they are written or read."""

    def __init__(self) -> None:
        self._header = hashlib.sha256()
        self._manifest = hashlib.sha256()
        self._content = hashlib.sha256()
        self._size = 0
        self._current: tuple[hashlib._Hash, ...] = ()

    def begin(self, name: str, size: int) -> None:
        """A member of size bytes begins."""
        self._current = ()
        if name in keymembers.BOUNDS:
            return
        self._content.update(f"{name}\0{size}\0".encode("ascii"))
        self._size += size
        part = self._header if name in _HEADER else self._manifest if name == _MANIFEST else None
        self._current = (self._content,) if part is None else (self._content, part)

    def update(self, data: bytes | memoryview) -> None:
        """The next bytes of its content."""
        for digest in self._current:
            digest.update(data)

    def receipt(self, backup_id: str) -> Receipt:
        """The receipt, after the last member."""
        digests = [digest.hexdigest() for digest in (self._header, self._manifest, self._content)]
        return Receipt(backup_id, digests[0], digests[1], digests[2], self._size)
