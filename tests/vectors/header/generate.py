#!/usr/bin/env python3
"""Writes the vectors of backup-header texts: python3 tests/vectors/header/generate.py

`status: 0` vectors say in further keys what the header must mean; the others have the error's `message`.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import vectorfile  # noqa: E402
from vectorfile import Vector  # noqa: E402

OURS = b"""\
version=4
encrypted=True
compressed=True
compression-filter=gzip
hmac-algorithm=scrypt
backup-id=20261124T060000-0123456789abcdef
chunk-size=104857600
manifest=True
"""

BASE = """\
base=20261123T060000-fedcba9876543210
base-manifest=%s
""" % ("0f" * 32)
INCREMENTS = OURS.replace(b"version=4", b"version=104") + BASE.encode()

QUBES = b"""\
version=4
encrypted=True
compressed=True
compression-filter=gzip
hmac-algorithm=scrypt
backup-id=20240229T135059-1234
"""

VERSION_3 = b"""\
version=3
encrypted=True
compressed=True
compression-filter=gzip
hmac-algorithm=SHA512
crypto-algorithm=aes-256-cbc
"""

MEANING = {
    "version": "4",
    "encrypted": "True",
    "compressed": "True",
    "compression": "gzip",
    "hmac_algorithm": "scrypt",
    "crypto_algorithm": "None",
    "backup_id": "20261124T060000-0123456789abcdef",
    "chunk_size": "104857600",
    "manifest": "True",
    "key": "False",
    "signed": "False",
    "base": "None",
}
QUBES_MEANING = MEANING | {"backup_id": "20240229T135059-1234", "chunk_size": "None", "manifest": "False"}
OLD_MEANING = QUBES_MEANING | {
    "version": "3",
    "hmac_algorithm": "sha512",
    "crypto_algorithm": "aes-256-cbc",
    "backup_id": "",
}


def good(about: str, data: bytes, meaning: dict[str, str] = MEANING, **changes: str) -> Vector:
    return {"about": about, "status": "0"} | meaning | changes, data


def bad(about: str, data: bytes, message: str) -> Vector:
    return {"about": about, "status": "4", "message": f"backup-header: {message}"}, data


def with_value(key: str, value: str, data: bytes = OURS) -> bytes:
    """data with another value of key."""
    lines = [f"{key}={value}".encode() if line.startswith(f"{key}=".encode()) else line for line in data.split(b"\n")]
    return b"\n".join(lines)


def without(key: str, data: bytes = OURS) -> bytes:
    """data without the line of key."""
    return b"".join(line for line in data.splitlines(keepends=True) if not line.startswith(f"{key}=".encode()))


def accepted() -> dict[str, Vector]:
    """What is read, and what it means."""
    reordered = b"".join(reversed(OURS.splitlines(keepends=True)))
    vectors = {
        "ours": good("what qbtools writes", OURS),
        "qubes": good("what Qubes 4 writes", QUBES, QUBES_MEANING),
        "version-3": good("what Qubes 3 wrote", VERSION_3, OLD_MEANING),
        "version-3-plain": good(
            "version 3, not encrypted",
            without("crypto-algorithm", with_value("encrypted", "False", VERSION_3)),
            OLD_MEANING,
            encrypted="False",
            crypto_algorithm="None",
        ),
        "version-3-new-keys": good(
            "version 3 knows no chunk size, manifest or ID", VERSION_3 + OURS[-71:], OLD_MEANING
        ),
        "crlf": good("lines that end with CR LF", OURS.replace(b"\n", b"\r\n")),
        "no-last-newline": good("no newline at the end", OURS[:-1]),
        "reordered": good("the order is free", reordered),
        "unknown-key": good("an unknown key is ignored with its value", OURS + b"colour=green/blue:(2)\n"),
        "unknown-key-twice": good("an unknown key may stand there twice", OURS + b"colour=red\ncolour=red\n"),
        "unknown-key-empty": good("an unknown key without value", OURS + b"colour=\n"),
        "not-compressed": good(
            "not compressed", with_value("compressed", "False"), compressed="False", compression="gzip"
        ),
        "not-compressed-no-filter": good(
            "not compressed, and no filter named",
            without("compression-filter", with_value("compressed", "False")),
            compressed="False",
        ),
        "longest": good("3,968 bytes", OURS + b"filler=" + b"x" * (3968 - len(OURS) - 7)),
        "cipher-in-version-4": good(
            "a cipher that does not count", OURS + b"crypto-algorithm=aes-256-cbc\n", crypto_algorithm="aes-256-cbc"
        ),
        "hmac-upper-case": good("the HMAC in upper case", with_value("hmac-algorithm", "SCRYPT")),
        "increments": good(
            "increments of a base",
            INCREMENTS,
            version="104",
            base=f"Base(backup_id='20261123T060000-fedcba9876543210', manifest='{'0f' * 32}')",
        ),
        "increments-key-signed": good(
            "with all keys",
            INCREMENTS + b"key=True\nsigned=ssh\n",
            version="104",
            base=f"Base(backup_id='20261123T060000-fedcba9876543210', manifest='{'0f' * 32}')",
            key="True",
            signed="True",
        ),
        "key": good("the archive carries its passphrase", OURS + b"key=True\n", key="True"),
        "key-and-signed": good("and a signature", OURS + b"signed=ssh\nkey=1\n", key="True", signed="True"),
        "signed": good("a signature alone", OURS + b"signed=ssh\n", signed="True"),
        "key-false": good("no wrapped passphrase, said so", OURS + b"key=no\n"),
        "manifest-false": good("no manifest, said so", with_value("manifest", "no"), manifest="False"),
        "small-chunks": good("chunks of one byte", with_value("chunk-size", "1"), chunk_size="1"),
    }
    for word in ("1", "true", "TRUE", "yes", "yEs"):
        vectors[f"true-{word}"] = good("a word for true", with_value("encrypted", word))
    for word in ("0", "false", "FALSE", "no", "No"):
        vectors[f"false-{word}"] = good("a word for false", with_value("compressed", word), compressed="False")
    names = {"gzip": "pigz", "bzip2": "bzip2 pbzip2", "xz": "xz", "zstd": "zstd zstdmt", "lzma": "lzma"}
    for meaning, words in names.items():
        for word in words.split():
            data = with_value("compression-filter", word)
            vectors[f"filter-{word}"] = good("a compression filter", data, compression=meaning)
    for word in ("sha1", "SHA256", "sha384"):
        data = with_value("hmac-algorithm", word, VERSION_3)
        vectors[f"hmac-{word}"] = good("an HMAC of version 3", data, OLD_MEANING, hmac_algorithm=word.lower())
    return vectors


def malformed() -> dict[str, Vector]:
    """What is no header at all."""
    nine = "line 9 is not key=value"
    return {
        "empty": bad("nothing", b"", "no version: an archive of version 2 or older, which is not read"),
        "blank-line": bad("a blank line", OURS + b"\n", nine),
        "blank-line-first": bad("a blank line at the beginning", b"\n" + OURS, "line 1 is not key=value"),
        "no-equals": bad("a line without =", OURS + b"colour\n", nine),
        "two-equals": bad("a line with two =", OURS + b"colour=a=b\n", nine),
        "no-key": bad("a line that begins with =", OURS + b"=a\n", nine),
        "space-in-key": bad("a space before =", OURS.replace(b"version=", b"version ="), "line 1 is not key=value"),
        "space-in-value": bad("a space behind =", OURS.replace(b"version=", b"version= "), "line 1 is not key=value"),
        "space-at-end": bad("a space at the end of a line", OURS.replace(b"4\n", b"4 \n"), "line 1 is not key=value"),
        "space-unknown-key": bad("a space in the value of an unknown key", OURS + b"colour=a b\n", nine),
        "underscore-in-key": bad("an underscore in a key", OURS + b"my_colour=a\n", nine),
        "not-ascii": bad("a letter beyond ASCII", OURS + "colour=grün\n".encode(), "not ASCII"),
        "not-ascii-digit": bad("a version in Arabic digits", with_value("version", "٤"), "not ASCII"),
        "nul": bad("a NUL byte", OURS + b"colour=\0\n", nine),
        "nul-padded": bad("NULs up to a block", OURS.ljust(512, b"\0"), nine),
        "cr-inside": bad("a CR inside a line", OURS.replace(b"4\n", b"4\rx\n"), "line 1 is not key=value"),
        "cr-twice": bad("two CRs at the end of a line", OURS.replace(b"4\n", b"4\r\r\n"), "line 1 is not key=value"),
        "cr-at-end": bad("a CR at the end, without LF", OURS[:-1] + b"\r", "line 8 is not key=value"),
        "escape": bad("an escape sequence for terminals", OURS + b"colour=\x1b[31m\n", nine),
        "too-long": bad("3,969 bytes", OURS + b"filler=" + b"x" * (3969 - len(OURS) - 7), "longer than 3968 bytes"),
    }


def refused() -> dict[str, Vector]:
    """Well-formed, but with a key that is missing, doubled or has a value that is not accepted."""
    old = "no version: an archive of version 2 or older, which is not read"
    vectors = {"missing-version": bad("no version", without("version"), old)}
    for key in ("encrypted", "compressed", "compression-filter", "hmac-algorithm", "backup-id"):
        vectors[f"missing-{key}"] = bad("a key is missing", without(key), f"{key} is missing")
    data = without("crypto-algorithm", VERSION_3)
    vectors["missing-crypto-algorithm"] = bad("version 3 without a cipher", data, "crypto-algorithm is missing")
    for key in (line.split("=")[0] for line in OURS.decode().splitlines()):
        line = next(line for line in OURS.splitlines(keepends=True) if line.startswith(f"{key}=".encode()))
        vectors[f"doubled-{key}"] = bad("a known key twice", OURS + line, f"{key} occurs twice")
    for version in ("5", "2", "1", "0", "04", "four", "103", "105", "0104"):
        data = with_value("version", version)
        vectors[f"version-{version}"] = bad("an unknown version", data, f"unknown version {version}")
    values = {
        "encrypted": "maybe 2 T on",
        "compressed": "maybe gzip",
        "manifest": "maybe",
        "key": "maybe",
        "signed": "pgp",
        "compression-filter": "sh GZIP bz2 none lz4 rm",
        "hmac-algorithm": "sha512 md5 none scrypt2",
        "crypto-algorithm": "aes-128-cbc rc4",
        "backup-id": "-x -",
        "chunk-size": "0 00 01 -1 1K 0x10 9999999999999999999",
    }
    for key, words in values.items():
        for word in words.split():
            added = key in ("crypto-algorithm", "key", "signed")
            data = OURS + f"{key}={word}\n".encode() if added else with_value(key, word)
            vectors[f"{key}-{word}"] = bad("an unknown value", data, f"{key} has an unknown value: {word}")
    odd = {
        "slash": ("compression-filter", "/bin/gzip"),
        "dollar": ("compression-filter", "$(id)"),
        "semicolon": ("compression-filter", "gzip;id"),
        "underscore": ("backup-id", "a_b"),
        "exclamation": ("backup-id", "a!b"),
        "empty": ("backup-id", ""),
        "empty-filter": ("compression-filter", ""),
        "plus": ("chunk-size", "+1"),
    }
    for name, (key, value) in odd.items():
        data = with_value(key, value)
        vectors[f"malformed-{name}"] = bad("a value of other letters", data, f"{key} has a malformed value: {value}")
    for word in ("scrypt", "md5", "none"):
        data = with_value("hmac-algorithm", word, VERSION_3)
        about = "not an HMAC of version 3"
        vectors[f"version-3-hmac-{word}"] = bad(about, data, f"hmac-algorithm has an unknown value: {word}")
    for line in ("key=True", "signed=ssh", "key=no"):
        data, key = VERSION_3 + f"{line}\n".encode(), line.split("=")[0]
        vectors[f"version-3-{line}"] = bad("only version 4 has it", data, f"{key} in an archive of version 3")
    vectors |= increments()
    data = with_value("encrypted", "False")
    vectors["not-encrypted"] = bad("version 4 is always encrypted", data, "says that an archive of version 4 is not")
    return vectors


def increments() -> dict[str, Vector]:
    """Faults of a header of version 104, and its keys in other versions."""
    vectors = {}
    for key in ("base", "base-manifest", "backup-id", "hmac-algorithm"):
        data = without(key, INCREMENTS)
        vectors[f"increments-without-{key}"] = bad("a key is missing", data, f"{key} is missing")
    for line in BASE.splitlines():
        key, value = line.split("=")
        data = INCREMENTS + f"{line}\n".encode()
        vectors[f"increments-doubled-{key}"] = bad("a known key twice", data, f"{key} occurs twice")
        for version, header in (("4", OURS), ("3", VERSION_3)):
            data = header + f"{line}\n".encode()
            about, message = "only version 104 has it", f"{key} in an archive of version {version}"
            vectors[f"version-{version}-{key}"] = bad(about, data, message)
    none = "promises no manifest in an archive of version 104"
    vectors["increments-without-manifest"] = bad("no manifest promised", without("manifest", INCREMENTS), none)
    data = with_value("manifest", "no", INCREMENTS)
    vectors["increments-manifest-false"] = bad("no manifest, said so", data, none)
    data = with_value("encrypted", "no", INCREMENTS)
    vectors["increments-not-encrypted"] = bad("not encrypted", data, "says that an archive of version 104 is not")
    data = with_value("hmac-algorithm", "sha512", INCREMENTS)
    message = "hmac-algorithm has an unknown value: sha512"
    vectors["increments-hmac-sha512"] = bad("an HMAC of version 3", data, message)
    values = {
        "base": ["-x", "20261124T060000-0123456789abcdef"],
        "base-manifest": ["0f" * 31, "0f" * 31 + "0", "0f" * 33, "0F" * 32, "0g" * 32, "none"],
    }
    for key, words in values.items():
        for number, word in enumerate(words):
            data = with_value(key, word, INCREMENTS)
            about = "the base is the backup itself" if word[:2] == "20" else "no value of this key"
            message = f"{key} has an unknown value: {word}"
            vectors[f"increments-{key}-{number}"] = bad(about, data, message)
    return vectors


def vectors() -> dict[str, Vector]:
    return accepted() | malformed() | refused()


if __name__ == "__main__":
    vectorfile.write_all(HERE, vectors())
