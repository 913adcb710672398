"""What pip installs: every program, every manual page, also without network; and how the programs are called."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from support import BIN, ROOT, environment, need
from venvs import Venv, made_once, need_packages, source_copy

from qbtools import __version__

PROGRAMS = sorted(path.name for path in BIN.iterdir())
PAGES = sorted(path.name for path in (ROOT / "man").iterdir())


def install(place: Path) -> None:
    """The README's way for a machine without network: wheels are collected, then installed with --no-index.

    `pip install .` makes the same wheels, and installs them.
    """
    need_packages(place)
    venv = Venv(place / "venv").create()
    venv.pip("wheel", "--wheel-dir", place / "wheels", source_copy(place))
    venv.pip("install", "--no-index", "--find-links", place / "wheels", "qbtools")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Venv:
    return Venv(made_once(tmp_path_factory, "installed", install) / "venv")


def call(*argv: str | Path, env: dict[str, str], cwd: Path, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [str(word) for word in argv], input=data, capture_output=True, env=env, cwd=cwd, timeout=120, check=False
    )


def test_every_program_is_installed_and_is_of_this_version(installed: Venv, tmp_path: Path) -> None:
    there = {path.name for path in installed.bin.iterdir()}
    assert set(PROGRAMS) <= there and "qb-backup" in PROGRAMS
    for program in PROGRAMS:
        done = call(installed.bin / program, "--version", env=environment(), cwd=tmp_path)
        name = "qb-backup" if program == "qb-run" else program  # which it is a part of
        assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"{name} {__version__}\n", b"")


def test_a_program_runs_the_installed_package_by_the_python_it_was_installed_for(
    installed: Venv, tmp_path: Path
) -> None:
    first = (installed.bin / "qb-seal").read_text().split("\n")[0]
    assert first == f"#!{installed.bin}/python3"
    text = "import qbtools; print(qbtools.__file__)"
    done = call(installed.bin / "python3", "-c", text, env=environment(), cwd=tmp_path)
    assert done.stdout.decode().startswith(str(installed.path))


def contents(place: Path) -> dict[str, bytes | None]:
    """Every file and directory below place, with the bytes of the files, but without the bytecode of Python."""
    found = [path for path in sorted(place.rglob("*")) if "__pycache__" not in path.parts]
    return {str(path.relative_to(place)): path.read_bytes() if path.is_file() else None for path in found}


def test_pip_leaves_the_checkout_as_it_was(installed: Venv, tmp_path: Path) -> None:
    assert contents(installed.path.parent / "source") == contents(source_copy(tmp_path))


def test_every_manual_page_is_installed(installed: Venv) -> None:
    there = {path.name for path in (installed.path / "share/man").rglob("*") if path.is_file()}
    assert set(PAGES) <= there
    for page in PAGES:
        assert (installed.path / f"share/man/man{page[-1]}" / page).read_bytes() == (ROOT / "man" / page).read_bytes()


def test_bash_completes(installed: Venv, tmp_path: Path) -> None:
    """With the installed files: commands, options of a command, and file names for the rest."""
    there = installed.path / "share/bash-completion/completions"
    assert {path.name for path in there.iterdir()} == {*PROGRAMS} - {"qb-run"}
    assert completed(there, tmp_path, "qb-backup", "") == {"create", "list", "verify", "restore", "merge", "help"}
    assert completed(there, tmp_path, "qb-backup", "help", "v") == {"verify"}
    assert completed(there, tmp_path, "qb-backup", "verify", "--ex") == {"--expect", "--expect-id"}
    assert completed(there, tmp_path, "qb-backup", "create", "--ex") == {"--exclude"}
    assert completed(there, tmp_path, "qb-backup", "list", "") == set(), "a file"
    assert completed(there, tmp_path, "qb-snapshot", "ta") == {"take"}
    assert completed(there, tmp_path, "qb-volread", "--r") == {"--raw"}
    assert completed(there, tmp_path, "qb-volread", "") == set()


def completed(there: Path, cwd: Path, *words: str) -> set[str]:
    """What bash offers for the last of words."""
    text = 'there=$1 && shift && . "$there/$1" && COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=() && '
    text += '"_${1//-/_}" && printf "%s\\n" "${COMPREPLY[@]}"'
    done = call("bash", "-c", text, "-", there, *words, env=environment(), cwd=cwd)
    assert (done.returncode, done.stderr) == (0, b"")
    return {*done.stdout.decode().split()}


def test_the_links_that_the_readme_makes(installed: Venv, tmp_path: Path) -> None:
    """Twice in a row, as after an update."""
    (lines,) = re.findall(r"^(?:ln|cp) .*\n(?:ln|cp) .*\n", (ROOT / "README.md").read_text(), re.MULTILINE)
    lines = lines.replace("/opt/qbtools", str(installed.path)).replace("/usr/local", str(tmp_path))
    (tmp_path / "bin").mkdir()
    (tmp_path / "share").mkdir()
    for _turn in range(2):
        done = call("bash", "-e", "-c", lines, env=environment(), cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"")
    done = call(tmp_path / "bin/qb-backup", "--version", env={"PATH": "/usr/bin:/bin"}, cwd=tmp_path)
    assert (done.returncode, done.stdout.decode()) == (0, f"qb-backup {__version__}\n")
    assert {path.name for path in (tmp_path / "share/man").rglob("*") if path.is_file()} == {*PAGES}
    assert (tmp_path / "share/bash-completion/completions/qb-backup").is_file()


def test_man_finds_the_pages_beside_the_programs(installed: Venv, tmp_path: Path) -> None:
    need("man")
    env = {**environment(MANWIDTH="80", MANPAGER="cat"), "PATH": f"{installed.bin}:/usr/bin:/bin"}
    for page in PAGES:
        name, _, section = page.rpartition(".")
        done = call("man", "-w", section, name, env=env, cwd=tmp_path)
        assert done.stdout.decode().strip() == str(installed.path / f"share/man/man{section}" / page)
    shown = call("man", "qb-seal", env=env, cwd=tmp_path)
    assert shown.returncode == 0 and b"qb-seal" in shown.stdout and b"EXIT STATUS" in shown.stdout


@pytest.mark.parametrize(
    ("env", "programs"), [({}, PROGRAMS), ({"PATH": ""}, ["qb-backup", "qb-seal"])], ids=["unset", "empty"]
)
def test_every_program_runs_by_its_absolute_path_without_a_path(
    installed: Venv, env: dict[str, str], programs: list[str], tmp_path: Path
) -> None:
    for program in programs:
        done = call(installed.bin / program, "--version", env=env, cwd=tmp_path)
        name = "qb-backup" if program == "qb-run" else program  # which it is a part of
        assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"{name} {__version__}\n", b"")


@pytest.mark.parametrize("env", [{}, {"PATH": ""}], ids=["unset", "empty"])
def test_a_backup_without_a_path(installed: Venv, env: dict[str, str], tmp_path: Path) -> None:
    volume = tmp_path / "disk.img"
    volume.write_bytes(os.urandom(300_000) + bytes(1 << 20))
    (tmp_path / "passphrase").write_text("secret\n")
    (tmp_path / "passphrase").chmod(0o600)
    backup, secret = installed.bin / "qb-backup", "--passphrase-file=passphrase"
    for words in (
        ("create", "--logn=10", secret, "-o", "disk.qb", "vm1:root=disk.img"),
        ("verify", secret, "disk.qb"),
        ("restore", secret, "--to", "restored", "disk.qb"),
    ):
        done = call(backup, *words, env=env, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "restored/vm1/root.img").read_bytes() == volume.read_bytes()


# --- a checkout ---


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_checkout_runs_in_place(program: str, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(BIN / program)
    (tmp_path / "qbtools").mkdir()  # a directory of that name where somebody stands must not matter
    ways: list[tuple[str | Path, Path]] = [(link, tmp_path)]
    if program in ("qb-backup", "qb-seal"):  # the only one that is bash, and one of those that have the same lines
        ways += [(BIN / program, tmp_path), (f"./{program}", BIN), ("./link", tmp_path)]
    for word, cwd in ways:
        done = call(word, "--version", env=environment(), cwd=cwd)
        name = "qb-backup" if program == "qb-run" else program  # which it is a part of
        assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"{name} {__version__}\n", b"")


def test_programs_have_the_same_lines() -> None:
    """But for the last one, which names the module; so a few of them stand for all. qb-backup is bash."""
    assert len({(BIN / program).read_text().rpartition("start.run(")[0] for program in PROGRAMS} - {""}) == 1


def test_the_version_is_in_one_place() -> None:
    # Two names for one version would drift apart.
    text = "".join((ROOT / name).read_text() for name in ("setup.py", "pyproject.toml"))
    assert __version__ not in text
