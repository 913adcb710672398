"""backup-header: the text that describes how an archive is made. parse(serialise(x)) == x.

Source of the keys and of the accepted values: the qb-format(5) page, "Outer archive". The text in the archive is
untrusted. Only the same text from the opened backup-header.hmac is trusted.
"""

from __future__ import annotations

import re
import time

from qbtools.errors import Damaged, Refused
from qbtools.formats import headertext
from qbtools.lean import NamedTuple

MAX_SIZE = 3968
"""Maximum bytes of the text: the sealed text must fit in the 4,096 bytes that Qubes reads of backup-header.hmac."""

MAX_MEMBER = 4096
"""Maximum bytes of the members backup-header and backup-header.hmac."""

COMPRESSIONS = ("gzip", "bzip2", "xz", "zstd", "none")
"""The methods that can be written, in the words of --compression."""

# Never run a program that an archive names. These names are accepted, each with its name in qbtools.
_FILTERS = {
    "gzip": "gzip",
    "pigz": "gzip",
    "bzip2": "bzip2",
    "pbzip2": "bzip2",
    "xz": "xz",
    "zstd": "zstd",
    "zstdmt": "zstd",
    "lzma": "lzma",
}
_TRUE = ("1", "true", "yes")
_FALSE = ("0", "false", "no")
_OLD_HMACS = ("sha1", "sha256", "sha384", "sha512")
_CIPHER = "aes-256-cbc"
_SIGNED = "ssh"
_NEWER = ("key", "signed")  # keys that do not exist in version 3
_BASE = ("base", "base-manifest")  # keys that only version 104 has
_KEYS = (
    "version",
    "encrypted",
    "compressed",
    "compression-filter",
    "hmac-algorithm",
    "crypto-algorithm",
    "backup-id",
    "chunk-size",
    "manifest",
    "key",
    "signed",
    *_BASE,
)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_DATED = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})-([0-9a-f]+)")


class OtherVersion(Damaged):
    """The header says that the archive has a version that is not read here. The header was not authenticated."""


class Base(NamedTuple):
    """The backup that the increments of an archive belong to."""

    backup_id: str
    manifest: str
    """SHA-256 over the content of its `qb-manifest.000.enc`: 64 lower-case hexadecimal digits."""


class BackupHeader(NamedTuple):
    """The values of a backup-header; all of them are checked.

    version: 4 or 3; 104 exactly where base is set, and then everything else is as in version 4. encrypted: false in
    version 3 at most. compressed: whether compression is used. compression: gzip, bzip2, xz, zstd or lzma.
    hmac_algorithm: scrypt; in version 3 sha1, sha256, sha384 or sha512. crypto_algorithm: aes-256-cbc or None.
    backup_id: empty in version 3. chunk_size: bytes, or None if Qubes wrote it. manifest: the archive ends with one.
    key: the archive has its wrapped passphrase. signed: it has a signature. base: the archive holds increments of it.
    """

    version: int
    encrypted: bool
    compressed: bool
    compression: str
    hmac_algorithm: str
    crypto_algorithm: str | None
    backup_id: str
    chunk_size: int | None
    manifest: bool
    key: bool = False
    signed: bool = False
    base: Base | None = None

    @property
    def program(self) -> str | None:
        """The compression of the files: gzip, bzip2, xz, zstd or lzma (xz's old format); None if there is none."""
        return self.compression if self.compressed else None

    @property
    def method(self) -> str:
        """The same as a word for users and scripts: `none` if there is none."""
        return self.program or "none"


def new_header(
    backup_id: str,
    compression: str,
    chunk_size: int,
    manifest: bool = True,
    key: bool = False,
    signed: bool = False,
    base: Base | None = None,
) -> BackupHeader:
    """The header that qbtools writes. compression: one of COMPRESSIONS. base: needs manifest. Refused if the ID is not
    valid, or is that of the base."""
    problem = backup_id_problem(backup_id)
    if base is not None and base.backup_id == backup_id:
        problem = "it is the ID of the base"
    if problem:
        raise Refused(f"the backup ID {backup_id}: {problem}")
    return BackupHeader(
        version=4 if base is None else 104,
        encrypted=True,
        compressed=compression != "none",
        compression="gzip" if compression == "none" else compression,
        hmac_algorithm="scrypt",
        crypto_algorithm=None,
        backup_id=backup_id,
        chunk_size=chunk_size,
        manifest=manifest,
        key=key,
        signed=signed,
        base=base,
    )


def new_backup_id(now: float, randomness: bytes) -> str:
    """An ID: the time now (seconds since the epoch) in UTC, and 8 random bytes in hexadecimal."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now))}-{randomness.hex()}"


def made(backup_id: str) -> str | None:
    """The date on which a backup began, from its ID: `2026-11-24 05:52:55 UTC`; None if the ID has no date.

    IDs of Qubes OS have the local time, so the result has no zone for them.
    """
    match = _DATED.fullmatch(backup_id)
    if match is None:
        return None
    year, month, day, hour, minute, second, rest = match.groups()
    return f"{year}-{month}-{day} {hour}:{minute}:{second}" + (" UTC" if len(rest) == 16 else "")


def backup_id_problem(backup_id: str) -> str | None:
    """The problem of a backup ID, or None."""
    if not headertext.WORD.fullmatch(backup_id) or backup_id.startswith("-"):
        return "not made of letters, digits and -, or begins with -"
    return None


def serialise(header: BackupHeader) -> bytes:
    """The text of a header. Refused if it is longer than MAX_SIZE."""
    lines = {
        "version": str(header.version),
        "encrypted": str(header.encrypted),
        "compressed": str(header.compressed),
        "compression-filter": header.compression,  # Qubes checks it even if nothing is compressed
        "hmac-algorithm": header.hmac_algorithm,
    }
    if header.crypto_algorithm is not None:
        lines["crypto-algorithm"] = header.crypto_algorithm
    if header.version != 3:
        lines["backup-id"] = header.backup_id
    if header.chunk_size is not None:
        lines["chunk-size"] = str(header.chunk_size)
    if header.manifest:
        lines["manifest"] = "True"
    if header.key:
        lines["key"] = "True"
    if header.signed:
        lines["signed"] = _SIGNED
    if header.base is not None:
        lines.update(zip(_BASE, header.base, strict=True))
    data = "".join(f"{key}={value}\n" for key, value in lines.items()).encode("ascii")
    if len(data) > MAX_SIZE:
        raise Refused("the backup ID is too long")
    return data


def parse(data: bytes) -> BackupHeader:
    """The header with this text. Damaged for everything that breaks the format, OtherVersion for another version.

    The text is checked even if it comes from an opened backup-header.hmac.
    """
    if len(data) > MAX_SIZE:
        raise Damaged(f"backup-header: longer than {MAX_SIZE} bytes")
    values = headertext.values(data, _KEYS)
    version = values.get("version")
    if version is None:
        raise OtherVersion("backup-header: no version: an archive of version 2 or older, which is not read")
    if version not in ("4", "104", "3"):
        raise OtherVersion(f"backup-header: unknown version {version}", "a newer qbtools may know it")
    return _Fields(values).header(int(version))


class _Fields:
    """The values of the known keys. Each is checked when it is read."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values

    def header(self, version: int) -> BackupHeader:
        for key in _NEWER:
            if version == 3 and key in self._values:
                raise Damaged(f"backup-header: {key} in an archive of version 3")
        encrypted = self._flag("encrypted")
        if version != 3 and not encrypted:
            raise Damaged(f"backup-header: says that an archive of version {version} is not encrypted")
        compressed = self._flag("compressed")
        hmac_algorithm = self._required("hmac-algorithm").lower()
        if hmac_algorithm not in (_OLD_HMACS if version == 3 else ("scrypt",)):
            raise self._unusable("hmac-algorithm")
        chunk_size = self._chunk_size()
        manifest = self._flag("manifest", default=False)
        return BackupHeader(
            version=version,
            encrypted=encrypted,
            compressed=compressed,
            compression=self._compression(compressed),
            hmac_algorithm=hmac_algorithm,
            crypto_algorithm=self._crypto_algorithm(version == 3 and encrypted),
            backup_id=self._backup_id(version),
            # Version 3 knows neither key.
            chunk_size=None if version == 3 else chunk_size,
            manifest=manifest and version != 3,
            key=self._flag("key", default=False),
            signed=self._signed(),
            base=self._base(version, manifest),
        )

    def _required(self, key: str) -> str:
        value = self._values.get(key)
        if value is None:
            raise Damaged(f"backup-header: {key} is missing")
        return value

    def _unusable(self, key: str) -> Damaged:
        return Damaged(f"backup-header: {key} has an unknown value: {self._values[key]}")

    def _flag(self, key: str, default: bool | None = None) -> bool:
        if default is not None and key not in self._values:
            return default
        value = self._required(key).lower()
        if value not in _TRUE + _FALSE:
            raise self._unusable(key)
        return value in _TRUE

    def _compression(self, compressed: bool) -> str:
        if not compressed and "compression-filter" not in self._values:
            return "gzip"
        value = _FILTERS.get(self._required("compression-filter"))
        if value is None:
            raise self._unusable("compression-filter")
        return value

    def _crypto_algorithm(self, needed: bool) -> str | None:
        if not needed and "crypto-algorithm" not in self._values:
            return None
        if self._required("crypto-algorithm").lower() != _CIPHER:
            raise self._unusable("crypto-algorithm")
        return _CIPHER

    def _signed(self) -> bool:
        if self._values.get("signed", _SIGNED) != _SIGNED:
            raise self._unusable("signed")
        return "signed" in self._values

    def _base(self, version: int, manifest: bool) -> Base | None:
        for key in _BASE:
            if version != 104 and key in self._values:
                raise Damaged(f"backup-header: {key} in an archive of version {version}")
        if version != 104:
            return None
        found = Base(self._required("base"), self._required("base-manifest"))
        if backup_id_problem(found.backup_id) or found.backup_id == self._values.get("backup-id"):
            raise self._unusable("base")
        if not _DIGEST.fullmatch(found.manifest):
            raise self._unusable("base-manifest")
        if not manifest:
            raise Damaged("backup-header: promises no manifest in an archive of version 104")
        return found

    def _backup_id(self, version: int) -> str:
        if version == 3:
            return ""
        value = self._required("backup-id")
        if backup_id_problem(value):
            raise self._unusable("backup-id")
        return value

    def _chunk_size(self) -> int | None:
        value = self._values.get("chunk-size")
        if value is None:
            return None
        if not re.fullmatch(r"[1-9][0-9]{0,17}", value, re.ASCII):
            raise self._unusable("chunk-size")
        return int(value)
