"""Archives for recipients without qbtools: age opens the passphrase, tar, scrypt and gzip the rest; and made so too."""

from __future__ import annotations

import random
from pathlib import Path

import identities
import pytest
from manual import examples
from support import bash, need

PAGE = examples("qbtools.7")
OPEN = "".join(PAGE[f"emergency-{step}"] for step in ("extract", "open", "chunks", "restore", "check"))
FILE = "vm1/private.img"
TYPED = "correct  horse 'battery' \"$stäple\" %s!"

# The pages' commands, for an archive with a key member that a person made.
MADE = (
    PAGE["bare-header"].replace("--logN 17", "--logN 10").replace("manifest=True", "manifest=True key=True")
    + 'printf %s "$PASSPHRASE" | {wrap} > "$WORK/{member}"\n'
    + PAGE["bare-chunks"]
    + "test $? -eq 0 &&\n"
    + PAGE["bare-archive"].replace("backup-header.hmac", "backup-header.hmac {member}", 1)
)


@pytest.fixture(autouse=True)
def peers() -> None:
    need("tar", "scrypt", "gzip", "age")


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    """A volume to be saved, and an identity with its recipient."""
    (tmp_path / "vm1").mkdir()
    data = bytes(100_000) + random.Random(1).randbytes(50_000) + bytes(100_000)
    (tmp_path / FILE).write_bytes(data)
    (tmp_path / "to").write_text(identities.age(tmp_path / "identity") + "\n")
    return data


OPENS = {
    "age": ("-R to", "age -d -i identity <(tar -xOf archive.qb qb-key.age)"),
    "scrypt": (
        "--wrap-passphrase --passphrase-file typed",
        "scrypt dec -fP <(tar -xOf archive.qb qb-key.scrypt) < <(printf 'qb-key!%s\\n' \"$(cat typed)\")",
    ),
    "a command": ("--key-command 'gzip -c'", "tar -xOf archive.qb qb-key.command | gzip -dc"),
}


@pytest.mark.parametrize("kind", OPENS)
def test_without_qbtools(kind: str, content: bytes, tmp_path: Path) -> None:
    sealing, opening = OPENS[kind]
    (tmp_path / "typed").write_text(TYPED + "\n")
    (tmp_path / "typed").chmod(0o600)
    made = bash(
        f"cd {tmp_path} && qb-volread {FILE} | qb-tarwrite {FILE} | gzip -c |"
        f" qb-seal -q {sealing} --chunk-size 20000 {FILE} > archive.qb"
    )
    assert (made.returncode, made.stderr) == (0, b"")
    (tmp_path / "commands").write_text(OPEN)
    done = bash(f"cd {tmp_path} && PATH=/usr/bin:/bin; {{ {opening}; echo; }} | bash commands", timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "emergency" / FILE).read_bytes() == content
    assert done.stdout.decode().splitlines()[-1] == f"{FILE}: complete"


WRAPS = {
    "age": ("qb-key.age", "age -R to", "-i identity"),
    "age, armored": ("qb-key.age", "age -a -R to", "-i identity"),
    "a command": ("qb-key.command", "gzip -c", "--key-command 'gzip -dc'"),
}


@pytest.mark.parametrize("kind", WRAPS)
def test_a_key_member_that_a_person_made(kind: str, content: bytes, tmp_path: Path) -> None:
    """With a passphrase that a person chose, as a person writes it down: without a newline."""
    member, wrap, opening = WRAPS[kind]
    (tmp_path / "commands").write_text(MADE.replace("{wrap}", wrap).replace("{member}", member))
    made = bash(f"cd {tmp_path} && PATH=/usr/bin:/bin exec bash commands", data=f"{TYPED}\n".encode(), timeout=300)
    assert (made.returncode, made.stderr) == (0, b"")
    unseal = f"qb-unseal --any-writer {opening}"
    done = bash(
        f"cd {tmp_path} && {unseal} --verify <archive.qb && {unseal} {FILE} <archive.qb |"
        " gzip -dc | qb-tarextract | qb-volwrite restored.img"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "restored.img").read_bytes() == content
