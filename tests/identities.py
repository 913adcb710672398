"""Identities of other programs that tests seal archives for: of age, of SSH, and of GnuPG."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import environment, need, run


def age(path: Path) -> str:
    """Makes an identity of age in path; gives its recipient."""
    need("age", "age-keygen")
    made = run("age-keygen", "-o", path)
    assert made.returncode == 0, made.stderr
    return run("age-keygen", "-y", path).stdout.decode().strip()


def ssh(path: Path, kind: str, passphrase: str = "") -> str:
    """Makes a private key in path, and its public key beside it; gives the public key. kind: ed25519 or rsa."""
    need("age", "ssh-keygen")
    size = ("-b", "2048") if kind == "rsa" else ()
    made = run("ssh-keygen", "-q", "-t", kind, *size, "-N", passphrase, "-C", "test", "-f", path)
    assert made.returncode == 0, made.stderr
    return path.with_name(f"{path.name}.pub").read_text().strip()


@contextmanager
def gnupg(user: str) -> Iterator[str]:
    """A GNUPGHOME with a key of this user, which no passphrase protects. Its agent has ended afterwards."""
    need("gpg", "gpgconf")
    home = tempfile.mkdtemp(prefix="gpg")  # a short path: an agent has its socket there
    try:
        words = ["gpg", "--batch", "-q", "--passphrase", "", "--quick-gen-key", user, "default", "default", "never"]
        subprocess.run(words, env=environment(GNUPGHOME=home), check=True, capture_output=True, timeout=120)
        yield home
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], env=environment(GNUPGHOME=home), check=False, timeout=60)
        shutil.rmtree(home, ignore_errors=True)
