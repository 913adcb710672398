"""Runs the vectors of outer archives through the programs that open them."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import Ended, Server
from support import run
from vectors import archivebytes, vectorfile

FOLDER = Path(__file__).parent / "outer"
FILE = "vm1/root.img"
PROGRAMS = {
    "verify": ("qb-unseal", "--verify"),
    "read": ("qb-unseal", FILE),
    "list": ("qb-unseal", "--list"),
    "structure": ("qb-unseal", "--structure"),
    "header": ("qb-header", "read", "-"),
}
GENERATOR = runpy.run_path(str(FOLDER / "generate.py"))
VECTORS = GENERATOR["vectors"]()
CONTENT = GENERATOR["ROOT_DATA"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    started = Server(archivebytes.KEYS)
    yield started
    started.close()


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("secret") / "passphrase"
    path.write_bytes(GENERATOR["PASSPHRASE"])
    path.chmod(0o600)
    return str(path)


def words(said: dict[str, str], program: str) -> list[str]:
    """The command line for a vector."""
    return [*PROGRAMS[program], *(said.get("options", "").split() if program != "structure" else [])]


def check(said: dict[str, str], program: str, ended: Ended) -> None:
    status, _, message = said[program].partition(" ")
    assert ended.status == int(status), ended.stderr
    name = PROGRAMS[program][0]
    lines = ended.stderr.splitlines()
    if ended.status:
        errors = [line for line in lines if line.startswith(f"{name}: error: ")]
        assert len(errors) == 1, lines
        assert errors[0].startswith(f"{name}: error: {message}")
        assert all(line.startswith((f"{name}: error: ", "hint: ")) for line in lines)
    elif "warning" in said and program != "header":
        assert lines == [f"{name}: warning: {said['warning']}"]
    else:
        assert lines == []
    if program == "read":
        assert ended.stdout == CONTENT[: int(said["stdout"])]
    elif program == "list" and ended.status == 0:
        assert re.fullmatch(rb"(vm[12]/root\.img\t[0-9]\t[0-9]+\n|qubes\.xml\t1\t200\n)*", ended.stdout)
    else:
        assert bool(ended.stdout) == (ended.status == 0 and program == "header")


@pytest.mark.parametrize("name", VECTORS)
def test_vector(name: str, server: Server, secret: str) -> None:
    said, data = VECTORS[name]
    run_all(server, name, [(program, words(said, program)) for program in PROGRAMS if program in said], secret)


def run_all(server: Server, name: str, programs: list[tuple[str, list[str]]], secret: str, piped: bool = False) -> None:
    """Each program with its command line says what it must of a vector."""
    said, data = VECTORS[name]
    argv = [words for _program, words in programs]
    found = server.run_each(argv, data=data, piped=piped, QB_PASSPHRASE_FILE=secret)
    for (program, _words), ended in zip(programs, found, strict=True):
        check(said, program, ended)


SAMPLE = [
    "whole",
    "qubes-whole",
    "flip-middle-body",
    "flip-manifest-mac",
    "cost-chunk-log-n-40",
    "cut-in-data",
    "cut-before-8",
    "drop-last",
    "reorder-files",
    "splice-attempt",
    "splice-other-backup",
    "manifest-dropped",
    "tail-byte",
    "type-fifo",
    "version-3",
    "qubes-drop-middle",
]


JOBS = (("1", "verify"), ("1", "read"), ("2", "read"), ("64", "read"), ("3", "list"))


@pytest.mark.parametrize("name", SAMPLE)
def test_from_a_pipe(name: str, server: Server, secret: str) -> None:
    """With as many jobs as one, two and many; and once through the program as it is installed."""
    said, data = VECTORS[name]
    programs = [(program, [*words(said, program), "-j", jobs]) for jobs, program in JOBS]
    run_all(server, name, programs, secret, piped=True)
    program, argv = programs[SAMPLE.index(name) % len(programs)]
    ended = run(*argv, data=data, QB_PASSPHRASE_FILE=secret, timeout=60)
    check(said, program, Ended(ended.returncode, ended.stdout, ended.stderr.decode()))


@pytest.mark.parametrize("jobs", ["1", "2", "16"])
def test_just_enough_memory(jobs: str, server: Server, secret: str) -> None:
    """For one chunk at a time: what does not fit waits, and nobody for ever."""
    for name, program in (
        ("whole", "verify"),
        ("whole", "read"),
        ("flip-middle-body", "read"),
        ("drop-last", "verify"),
    ):
        said, data = VECTORS[name]
        argv = (*words(said, program), "-j", jobs, "--max-memory", str(128 * 8 * (1024 + 3) + 512))
        check(said, program, server.run(*argv, data=data, QB_PASSPHRASE_FILE=secret))


def test_what_is_listed(server: Server, secret: str) -> None:
    for name in ("whole", "pax", "qubes-whole", "flip-middle-body"):
        ended = server.run("qb-unseal", "--list", data=VECTORS[name][1], QB_PASSPHRASE_FILE=secret)
        assert ended.stdout == b"qubes.xml\t1\t200\nvm1/root.img\t3\t600\nvm2/root.img\t2\t256\n"


def test_the_files_are_what_the_generator_writes() -> None:
    assert vectorfile.read_all(FOLDER) == GENERATOR["kept"](VECTORS)


def test_every_vector_says_what_it_must() -> None:
    keys = {"about", "verify", "read", "stdout", "list", "structure"}
    for name, (said, _data) in VECTORS.items():
        assert keys <= set(said) <= keys | {"header", "options", "warning"}, name
        # What a program finds, one that looks closer finds too: only --verify ends well in the end.
        assert said["verify"] != "0" or name == "manifest-empty-list" or said["read"] == said["list"] == "0", name
