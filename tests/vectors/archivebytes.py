"""Containers and outer archives put together from bytes, on purpose without the code that is tested with them.

    backup-header, backup-header.hmac, qubes.xml.000.enc, vm1/root.img.000.enc ..., qb-manifest.000.enc

Every salt is made from what it is for, so the same archive comes out each time.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from vectors.tarbytes import END, regular

PASSPHRASE = b"correct horse battery staple"
ID = "20261124T060000-0123456789abcdef"
OTHER_ID = "20251124T060000-fedcba9876543210"
CHUNK = 256

Piece = tuple[str, bytes]
Pieces = list[Piece]


KEYS: dict[tuple[bytes, bytes, int, int, int], bytes] = {}
"""What was derived: passphrase, salt, N, r and p of each key."""


def derive(secret: bytes, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    wanted = (secret, salt, 1 << log_n, r, p)
    if wanted not in KEYS:
        KEYS[wanted] = hashlib.scrypt(secret, salt=salt, n=1 << log_n, r=r, p=p, maxmem=1 << 30, dklen=64)
    return KEYS[wanted]


def fixed(salt: bytes, log_n: int = 10, r: int = 8, p: int = 1, version: int = 0) -> bytes:
    """The first 64 bytes: what stands there without a key."""
    start = struct.pack(">6sBBII", b"scrypt", version, log_n, r, p) + salt
    return start + hashlib.sha256(start).digest()[:16]


def container(secret: bytes, data: bytes, log_n: int = 10, r: int = 8, p: int = 1, mark: str = "") -> bytes:
    """A container; mark makes its salt another one."""
    salt = hashlib.sha256(b"salt" + secret + data + mark.encode()).digest()
    keys = derive(secret, salt, log_n, r, p)
    start = fixed(salt, log_n, r, p)
    start += hmac.digest(keys[32:], start, "sha256")
    encrypt = Cipher(AES(keys[:32]), CTR(bytes(16))).encryptor()
    sealed = start + encrypt.update(data) + encrypt.finalize()
    return sealed + hmac.digest(keys[32:], sealed, "sha256")


def hostile(log_n: int = 10, r: int = 8, p: int = 1, version: int = 0, size: int = 0) -> bytes:
    """Looks like a container of size bytes, with parameters of the attacker's choice. Nobody can open it."""
    return fixed(bytes(32), log_n, r, p, version) + bytes(32 + size + 32)


def refixed(sealed: bytes, at: int, new: bytes) -> bytes:
    """sealed with new at an offset of its first 48 bytes, and the plain checksum made right again."""
    start = sealed[:at] + new + sealed[at + len(new) : 48]
    return start + hashlib.sha256(start).digest()[:16] + sealed[64:]


def content(name: str, size: int) -> bytes:
    """Bytes that look random, other ones for each name."""
    return hashlib.shake_256(name.encode()).digest(size)


def header(backup_id: str = ID, chunk_size: int | None = CHUNK, manifest: bool = True, more: str = "") -> bytes:
    lines = ["version=4", "encrypted=True", "compressed=True", "compression-filter=gzip", "hmac-algorithm=scrypt"]
    lines.append(f"backup-id={backup_id}")
    lines += [f"chunk-size={chunk_size}"] * (chunk_size is not None) + ["manifest=True"] * manifest
    return "".join(line + "\n" for line in lines).encode() + more.encode()


def header_pair(data: bytes, passphrase: bytes = PASSPHRASE) -> Pieces:
    return [("backup-header", data), ("backup-header.hmac", container(b"backup-header!" + passphrase, data))]


def chunk(
    name: str,
    number: int,
    data: bytes,
    backup_id: str = ID,
    passphrase: bytes = PASSPHRASE,
    log_n: int = 10,
    r: int = 8,
    p: int = 1,
    mark: str = "",
) -> Piece:
    secret = f"{backup_id}!{name}.{number:03d}!".encode() + passphrase
    return f"{name}.{number:03d}.enc", container(secret, data, log_n, r, p, mark)


def file(name: str, data: bytes, backup_id: str = ID, size: int = CHUNK, mark: str = "") -> Pieces:
    """The chunks of a file, cut by the rule: a full one is never the last."""
    pieces = [data[at : at + size] for at in range(0, len(data) + 1, size)]
    return [chunk(name, number, piece, backup_id, mark=mark) for number, piece in enumerate(pieces)]


def manifest_text(pieces: Pieces, backup_id: str = ID) -> bytes:
    """What the manifest says of the chunks among pieces."""
    files: dict[str, Pieces] = {}
    for member, sealed in pieces:
        if member.endswith(".enc"):
            files.setdefault(member[:-8], []).append((member, sealed))
    lines = ["qb-manifest 1", f"backup-id {backup_id}"]
    for name, chunks in files.items():
        digest = hashlib.sha256(b"".join(sealed[-32:] for _member, sealed in chunks)).hexdigest()
        total = sum(len(sealed) - 128 for _member, sealed in chunks)
        lines.append(f"file {len(chunks)} {total} {digest} {name}")
    lines.append(f"end {len(files)}")
    return "".join(line + "\n" for line in lines).encode()


def manifest(pieces: Pieces, backup_id: str = ID, mark: str = "") -> Piece:
    return chunk("qb-manifest", 0, manifest_text(pieces, backup_id), backup_id, mark=mark)


def blocks(pieces: Pieces) -> list[bytes]:
    """Each member of the outer archive with its tar header and padding."""
    return [regular(data, name.encode()) for name, data in pieces]


def archive(pieces: Pieces, end: bytes = END) -> bytes:
    return b"".join(blocks(pieces)) + end
