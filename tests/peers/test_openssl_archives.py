"""openssl itself: its HMACs in every spelling it prints today, its encryption, against our reading of both."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from support import need, run
from version3 import PASSPHRASE, Maker, joined

from qbtools.formats.legacy import parse_hmac
from qbtools.formats.opensslenc import HEADROOM, SLACK, Decryptor


@pytest.fixture(autouse=True)
def _openssl() -> None:
    need("openssl", "tar", "gzip")


@pytest.mark.parametrize("size", [0, 1, 15, 16, 100_000, 300_001])
def test_decryption(size: int) -> None:
    data = os.urandom(size)
    words = ["openssl", "enc", "-aes-256-cbc", "-md", "md5", "-pass", f"pass:{PASSPHRASE}"]
    stored = subprocess.run(words, input=data, capture_output=True, check=True).stdout
    buffer = memoryview(bytearray(bytes(HEADROOM) + stored + bytes(SLACK)))
    work = Decryptor(PASSPHRASE.encode())
    out = bytes(work.update(buffer, HEADROOM + len(stored)))
    assert out + work.finish() == data


@pytest.mark.parametrize("algorithm", ["SHA1", "sha256", "SHA384", "sha512"])
def test_hmacs(algorithm: str, tmp_path: Path) -> None:
    import hmac

    data = os.urandom(1000)
    text = Maker(tmp_path, algorithm=algorithm).hmac(data)
    assert parse_hmac(text, algorithm.lower(), "x") == hmac.digest(PASSPHRASE.encode(), data, algorithm.lower())


@pytest.mark.parametrize("encrypted", [True, False])
@pytest.mark.parametrize("algorithm", ["SHA1", "sha256", "SHA384", "SHA512"])
def test_archives(algorithm: str, encrypted: bool, tmp_path: Path) -> None:
    """Made by openssl, gzip and GNU tar; many chunks, which end anywhere."""
    (tmp_path / "qubes.xml").write_text("<QubesVmCollection/>")
    (tmp_path / "private.img").write_bytes(os.urandom(30_000))
    maker = Maker(tmp_path, encrypted=encrypted, algorithm=algorithm, cut=7_001)
    members = maker.pair("backup-header", maker.header())
    data = maker.inner(tmp_path / "private.img", "vm1/private.img")
    xml = Maker(tmp_path, encrypted=encrypted, algorithm=algorithm)
    members += xml.chunks("qubes.xml", xml.inner(tmp_path / "qubes.xml", "qubes.xml"))
    members += maker.chunks("vm1/private.img", data)
    archive = joined(tmp_path, members)
    secret = tmp_path / "passphrase"
    secret.write_text(PASSPHRASE)
    secret.chmod(0o600)
    done = run("qb-unseal", "--passphrase-file", secret, "vm1/private.img", data=archive)
    assert done.returncode == 0, done.stderr
    assert done.stdout == data
    assert b"warning: an archive of version 3" in done.stderr
