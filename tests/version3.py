"""Archives of version 3, made as Qubes OS 2 to 3.2 made them: with GNU tar, a compressor and openssl."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

PASSPHRASE = "three words, é"
BLOCKING = 10240


@dataclass
class Maker:
    """How an archive is made. place: a directory for what is needed meanwhile; cut: bytes of a chunk."""

    place: Path
    encrypted: bool = True
    compression: str | None = "gzip"
    algorithm: str = "SHA512"
    cut: int = 104857600
    passphrase: str = PASSPHRASE

    def header(self) -> bytes:
        lines = [
            "version=3",
            f"hmac-algorithm={self.algorithm}",
            "crypto-algorithm=aes-256-cbc",
            f"encrypted={self.encrypted}",
            f"compressed={bool(self.compression)}",
        ]
        if self.compression:
            lines.append(f"compression-filter={self.compression}")
        return "".join(line + "\n" for line in lines).encode()

    def hmac(self, data: bytes) -> bytes:
        """What openssl prints."""
        words = ["openssl", "dgst", f"-{self.algorithm}", "-hmac", self.passphrase]
        return subprocess.run(words, input=data, capture_output=True, check=True).stdout

    def inner(self, source: Path, name: str) -> bytes:
        """The archive of a file or a directory (a whole one where name ends with `/.`) as the file name, compressed.

        Through a named pipe: so tar pads what the compressor gives up to its blocking factor.
        """
        directory, base = (source, ".") if name.endswith("/.") else (source.parent, source.name)
        subdir = name[: -len(base)]
        pipe = self.place / "pipe"
        if not pipe.exists():
            os.mkfifo(pipe)
        words = ["tar", "-Pc", "--sparse", "-f", str(pipe), "-C", str(directory), "--dereference"]
        words += ["--xform", f"s:^{base}:{subdir}\\0:"]
        if self.compression:
            words.append(f"--use-compress-program={self.compression}")
        with subprocess.Popen([*words, base]) as tar:
            data = pipe.read_bytes()
        assert tar.returncode == 0
        assert len(data) % BLOCKING == 0
        return data

    def encrypt(self, data: bytes) -> bytes:
        """By openssl, which used MD5 by default then."""
        words = ["openssl", "enc", "-e", "-aes-256-cbc", "-md", "md5", "-pass", f"pass:{self.passphrase}"]
        return subprocess.run(words, input=data, capture_output=True, check=True).stdout

    def pair(self, name: str, data: bytes) -> list[tuple[str, bytes]]:
        return [(name, data), (f"{name}.hmac", self.hmac(data))]

    def chunks(self, name: str, data: bytes) -> list[tuple[str, bytes]]:
        """The members for a file whose (compressed) content is data."""
        stored = self.encrypt(data) if self.encrypted else data
        cut = len(stored) if name == "qubes.xml" else self.cut
        pieces = [stored[at : at + cut] for at in range(0, max(len(stored), 1), cut)]
        return [member for at, piece in enumerate(pieces) for member in self.pair(f"{name}.{at:03d}", piece)]

    def members(self, files: dict[str, Path]) -> list[tuple[str, bytes]]:
        """All members of an archive of these files: name to source, qubes.xml first."""
        found = self.pair("backup-header", self.header())
        for name, source in files.items():
            found += self.chunks(name, self.inner(source, name))
        return found


def joined(place: Path, members: list[tuple[str, bytes]]) -> bytes:
    """The archive: each member by a GNU tar of its own, padded to its blocking factor, as Qubes wrote it."""
    return b"".join(_stored(place, name, data) for name, data in members)


@lru_cache(maxsize=256)
def _stored(place: Path, name: str, data: bytes) -> bytes:
    path = place / "stage" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    words = ["tar", "-cO", "--posix", "-C", str(place / "stage"), name]
    return subprocess.run(words, capture_output=True, check=True).stdout
