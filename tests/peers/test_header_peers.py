"""qb-header and qb-manifest against the scrypt program and GNU tar, in both directions."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import bash, need

ID = "20261124T060000-0123456789abcdef"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the passphrase in files: ours, and as the scrypt program needs it for header and manifest."""
    need("scrypt", "tar")
    for name, text in [("ours", "p w"), ("header", "backup-header!p w"), ("manifest", f"{ID}!qb-manifest.000!p w")]:
        (tmp_path / name).write_text(text + "\n")
        (tmp_path / name).chmod(0o600)
    return tmp_path


def sh(place: Path, text: str) -> bytes:
    done = bash(f"cd {place} && {text}", QB_PASSPHRASE_FILE=str(place / "ours"))
    assert (done.returncode, done.stderr) == (0, b""), done.stderr
    return done.stdout


def test_the_scrypt_program_opens_our_header(place: Path) -> None:
    out = sh(
        place,
        f"qb-header write --backup-id {ID} --logn 12 > archive && tar -xf archive && "
        "scrypt dec --passphrase file:header backup-header.hmac opened && cmp opened backup-header && cat opened",
    )
    assert out.startswith(b"version=4\nencrypted=True\n")


def test_the_scrypt_program_opens_our_manifest(place: Path) -> None:
    record = f"{ID} 1 5 {'a' * 64} vm1/a"
    out = sh(
        place,
        f"echo '{record}' | qb-manifest --backup-id {ID} --logn 12 - | tar -xO | "
        "scrypt dec --passphrase file:manifest -",
    )
    assert out.decode() == f"qb-manifest 1\nbackup-id {ID}\nfile 1 5 {'a' * 64} vm1/a\nend 1\n"


@pytest.mark.parametrize("form", ["ustar", "gnu", "posix", "v7"])
@pytest.mark.parametrize("parameters", ["--logN 11 -r 8 -p 1", "--logN 10 -r 3 -p 5"])
def test_we_read_the_header_of_tar_and_scrypt(place: Path, form: str, parameters: str) -> None:
    text = f"version=4\\nencrypted=True\\ncompressed=False\\nhmac-algorithm=scrypt\\nbackup-id={ID}\\n"
    out = sh(
        place,
        f"printf '{text}' > backup-header && "
        f"scrypt enc {parameters} --passphrase file:header backup-header backup-header.hmac && "
        f"tar --format={form} -cf archive backup-header backup-header.hmac && qb-header read archive",
    )
    assert f"backup-id={ID}\n".encode() in out
