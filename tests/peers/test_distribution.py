"""What Debian 12 ships is enough: its versions of the three packages, in an environment of their own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from support import BIN, ROOT, environment
from venvs import Venv, made_once, need_packages

DEBIAN_12 = ("cryptography==38.*", "docopt==0.6.2", "scrypt==0.8.20")

# What uses none of the three packages: it cannot tell which version is there.
UNRELATED = ("test_host_*", "test_lvm_*", "test_plan_*", "test_processes.py", "test_progress.py", "test_qubesxml.py")
UNRELATED += ("test_older.py", "test_recreate.py", "test_runs_*", "test_streams.py", "test_volume*")


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which the programs run with these versions."""

    def make(place: Path) -> None:
        need_packages(place)
        Venv(place / "venv").create().pip("install", *DEBIAN_12, "pytest", "hypothesis")

    place = made_once(tmp_path_factory, "distribution", make)
    return {**environment(), "PATH": f"{BIN}:{place}/venv/bin:/usr/bin:/bin:/usr/sbin:/sbin"}


def test_the_versions_are_those(debian: dict[str, str]) -> None:
    text = "from importlib.metadata import version as v; print(*map(v, ('cryptography', 'docopt', 'scrypt')))"
    done = subprocess.run(["python3", "-c", text], env=debian, capture_output=True, check=True)
    assert done.stdout.decode().startswith("38.0.") and done.stdout.decode().endswith(" 0.6.2 0.8.20\n")


def test_the_core_of_the_suite_passes(debian: dict[str, str], tmp_path: Path) -> None:
    ignored = [f"--ignore-glob=*/{name}" for name in UNRELATED]
    argv = ["python3", "-m", "pytest", "-x", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/t", *ignored]
    done = subprocess.run([*argv, "tests/unit"], cwd=ROOT, env=debian, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode()


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_a_round_trip(debian: dict[str, str], tmp_path: Path, compression: str) -> None:
    volume = tmp_path / "disk.img"
    volume.write_bytes(os.urandom(700_000) + bytes(1 << 20) + b"the end")
    (tmp_path / "passphrase").write_text("secret\n")
    (tmp_path / "passphrase").chmod(0o600)
    zip_, unzip = ("gzip -c", "gzip -dc") if compression == "gzip" else ("cat", "cat")
    script = f"""
set -euo pipefail
export QB_PASSPHRASE_FILE=passphrase
qb-volread disk.img | qb-tarwrite vm1/root.img | {zip_} |
    qb-seal --logn 10 --chunk-size 300K -j 2 --compression {compression} vm1/root.img >hand.qb
qb-unseal --verify <hand.qb
qb-unseal vm1/root.img <hand.qb | {unzip} | qb-tarextract | qb-volwrite hand.img
cmp disk.img hand.img
qb-backup create --logn 10 --compress {compression} -q -o backup.qb vm1:root=disk.img
qb-backup verify backup.qb
qb-backup restore --to restored backup.qb
cmp disk.img restored/vm1/root.img
"""
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=debian, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
