"""What Debian 12 ships is enough: its versions of the three packages, in an environment of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest
from support import BIN, ROOT, environment
from venvs import Venv, made_once, need_packages

DEBIAN_12 = ("cryptography==38.*", "docopt==0.6.2", "scrypt==0.8.20")

# The modules that use these packages, each with its tests. All others see the packages through them.
USERS = {
    "qbtools.commands.cli": "test_cli.py",
    "qbtools.formats.container": "test_container.py",
    "qbtools.formats.kdf": "test_kdf.py",
    "qbtools.formats.opensslenc": "test_legacy.py",
}

# pytest comes from the Python that runs this test, behind what Debian ships.
PYTEST = "import sys; sys.path += sys.argv.pop(1).split(':'); import pytest; sys.exit(pytest.main())"


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which the programs run with these versions."""

    def make(place: Path) -> None:
        need_packages(place)
        Venv(place / "venv").create().pip("install", *DEBIAN_12)

    place = made_once(tmp_path_factory, "distribution", make)
    return {**environment(), "PATH": f"{BIN}:{place}/venv/bin:/usr/bin:/bin:/usr/sbin:/sbin"}


def test_the_versions_are_those(debian: dict[str, str]) -> None:
    text = "from importlib.metadata import version as v; print(*map(v, ('cryptography', 'docopt', 'scrypt')))"
    done = subprocess.run(["python3", "-c", text], env=debian, capture_output=True, check=True)
    assert done.stdout.decode().startswith("38.0.") and done.stdout.decode().endswith(" 0.6.2 0.8.20\n")


def test_the_users_of_the_packages_are_those() -> None:
    names = "|".join(requirement.partition("=")[0] for requirement in DEBIAN_12)
    users = re.compile(rf"^ *(import|from) ({names})\b", re.MULTILINE)
    found = {path.relative_to(ROOT) for path in (ROOT / "qbtools").rglob("*.py") if users.search(path.read_text())}
    assert found == {Path(f"{name.replace('.', '/')}.py") for name in USERS}


def test_their_tests_pass(debian: dict[str, str], tmp_path: Path) -> None:
    tests = [f"tests/unit/{name}" for name in USERS.values()]
    options = ["-x", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/t"]
    ours = ":".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    argv = ["python3", "-c", PYTEST, ours, *options, *tests]
    env = {**debian, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


def test_a_round_trip(debian: dict[str, str], tmp_path: Path) -> None:
    volume = tmp_path / "disk.img"
    volume.write_bytes(os.urandom(700_000) + bytes(1 << 20) + b"the end")
    (tmp_path / "passphrase").write_text("secret\n")
    (tmp_path / "passphrase").chmod(0o600)
    script = """
set -euo pipefail
export QB_PASSPHRASE_FILE=passphrase
qb-volread disk.img | qb-tarwrite vm1/root.img | gzip -c |
    qb-seal --logn 10 --chunk-size 300K -j 2 vm1/root.img >hand.qb
qb-unseal vm1/root.img <hand.qb | gzip -dc | qb-tarextract | qb-volwrite hand.img
cmp disk.img hand.img
qb-backup verify hand.qb
"""
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=debian, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
