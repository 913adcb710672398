"""One contract for every program: all programs in bin/ are tested against it."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
from pathlib import Path

import pytest
from product import PROGRAMS, doc, options
from support import environment, run

from qbtools import __version__
from qbtools.formats import header
from qbtools.formats.containerhead import Parameters
from qbtools.formats.manifest import FileRecord, to_line
from qbtools.formats.sealer import Settings, beginning

BACKUP_ID = "20260101T000000-0123456789abcdef"

# A call that would do something, given its files. In it, {volume} exists, {target} does not.
CALLS = {
    "qb-backup": ["create", "--logn=10", "{volume}"],
    "qb-compress": ["gzip"],
    "qb-decompress": ["gzip"],
    "qb-delta": ["--name=vm1/root.img"],
    "qb-header": ["write", f"--backup-id={BACKUP_ID}", "--logn=10"],
    "qb-host": ["apply", "--host={target}", "--metadata={volume}", "{records}"],
    "qb-host-dir": ["{volume}", "inventory"],
    "qb-host-libvirt": ["test:///default", "inventory"],
    "qb-host-lvm": ["vg/pool", "inventory"],
    "qb-key": ["show"],
    "qb-manifest": [f"--backup-id={BACKUP_ID}", "--logn=10", "{records}"],
    "qb-merge": ["{volume}"],
    "qb-meta": ["list"],
    "qb-plan": ["--metadata={volume}", "--host={target}"],
    "qb-seal": ["--logn=10", "vm1/root.img"],
    "qb-series": ["list", "{target}"],
    "qb-snapshot": ["list"],
    "qb-store": ["{target}"],
    "qb-tarextract": [],
    "qb-tarwrite": ["vm1/root.img"],
    "qb-tree": ["--extract", "{target}", "dom0-home/user"],
    "qb-unseal": ["vm1/root.img"],
    "qb-volread": ["{volume}"],
    "qb-volwrite": ["{target}"],
}
WITHOUT_ARGUMENTS = {
    "qb-backup": "no command given: create, list, verify, restore, merge, help",
    "qb-compress": "no filter given",
    "qb-decompress": "no filter given",
    "qb-header": "no command given: id, write, read",
    "qb-host": "no command given: apply, settle",
    "qb-host-dir": "no directory and no verb given",
    "qb-host-libvirt": "no URI and no verb given",
    "qb-host-lvm": "no pool and no verb given",
    "qb-key": "no command given: show, list, rewrap, check",
    "qb-manifest": "no --backup-id and no records given",
    "qb-merge": "no base given",
    "qb-meta": "no command given: create, list, check",
    "qb-plan": "no --metadata and no --host given",
    "qb-seal": "no name given",
    "qb-series": "no command given: list, confirm, forget",
    "qb-snapshot": "no command given: take, release, list, clean",
    "qb-store": "no file given",
    "qb-tarwrite": "no name given",
    "qb-tree": "no path and no name given",
    "qb-unseal": "no name given",
    "qb-volread": "no volume given",
    "qb-volwrite": "no target given",
}
HOSTS = {program for program in CALLS if program.startswith("qb-host")}
WRITE_NO_DATA = {"qb-key", "qb-meta", "qb-plan", "qb-series", "qb-snapshot", "qb-store", "qb-tree", "qb-volwrite"}
WRITE_BINARY = sorted(CALLS.keys() - HOSTS - WRITE_NO_DATA)
TAKE_MANY = {"qb-backup", "qb-merge", "qb-snapshot", "qb-unseal"}
READ_DATA = ["qb-compress", "qb-decompress", "qb-key", "qb-seal", "qb-store", "qb-tarextract", "qb-tarwrite", "qb-tree"]
READ_DATA += ["qb-delta", "qb-unseal", "qb-volwrite"]


@pytest.fixture
def place(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "volume.img").write_bytes(b"data" * 1000)
    (tmp_path / "records").write_text(to_line(BACKUP_ID, FileRecord("vm1/root.img", 1, 4000, "0" * 64)))
    (tmp_path / "passphrase").write_text("secret\n")
    (tmp_path / "passphrase").chmod(0o600)
    names = {"volume": "volume.img", "records": "records", "target": "target.img", "passphrase": "passphrase"}
    return {name: str(tmp_path / path) for name, path in names.items()}


def arguments(program: str, place: dict[str, str]) -> list[str]:
    return [program, *(word.format(**place) for word in CALLS[program])]


def test_every_program_is_looked_at() -> None:
    assert sorted(CALLS) == PROGRAMS


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help(program: str, option: str) -> None:
    done = run(program, option)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, doc(program), b"")


@pytest.mark.parametrize("program", PROGRAMS)
def test_version(program: str) -> None:
    done = run(program, "--version")
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"{program} {__version__}\n", b"")


def usage_error(program: str, *words: str, message: str | None = None) -> None:
    done = run(program, *words)
    assert (done.returncode, done.stdout) == (2, b""), words
    error, hint, *more = done.stderr.decode().splitlines(keepends=True)
    assert error.startswith(f"{program}: error: ") and hint.startswith("hint: ") and not more
    assert message is None or error == f"{program}: error: {message}\n"


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_unknown_option_is_a_usage_error(program: str, place: dict[str, str]) -> None:
    words = arguments(program, place)
    usage_error(*words, "--no-such-option", message="unknown option: --no-such-option")
    usage_error(program, "--no-such-option")
    assert not Path(place["target"]).exists()


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_abbreviated_option_is_a_usage_error(program: str, place: dict[str, str]) -> None:
    """One of them: all programs share one parser, which has tests of its own."""
    known = options(program)
    word = next(name[:-1] for name in known if name.startswith("--") and name[:-1] not in known)
    usage_error(*arguments(program, place), word)


@pytest.mark.parametrize("program", sorted(CALLS.keys() - {"qb-delta", "qb-tarextract"}))
def test_without_arguments_the_missing_ones_are_named(program: str) -> None:
    usage_error(program, message=WITHOUT_ARGUMENTS[program])


@pytest.mark.parametrize("program", [p for p in PROGRAMS if p not in TAKE_MANY])
def test_too_many_arguments(program: str, place: dict[str, str]) -> None:
    usage_error(*arguments(program, place), "one", "two", "three")


def on_terminal(command: list[str], stream: str, place: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    """Runs a program with a terminal as one of its standard streams only."""
    ours, theirs = pty.openpty()
    streams: dict[str, int] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, stream: theirs}
    try:
        return subprocess.run(
            command,
            stderr=subprocess.PIPE,
            env=environment(QB_PASSPHRASE_FILE=place["passphrase"]),
            start_new_session=True,
            timeout=60,
            check=False,
            **streams,  # type: ignore[call-overload]
        )
    finally:
        os.set_blocking(ours, False)
        os.close(theirs)
        with contextlib.suppress(OSError):
            assert os.read(ours, 1) == b"", "written to the terminal"
        os.close(ours)


@pytest.mark.parametrize("program", WRITE_BINARY)
def test_binary_data_is_not_written_to_a_terminal(program: str, place: dict[str, str]) -> None:
    done = on_terminal(arguments(program, place), "stdout", place)
    assert done.returncode == 2
    assert done.stderr.decode() == (
        f"{program}: error: refusing to write binary data to a terminal\nhint: redirect it to a file or a pipe\n"
    )


@pytest.mark.parametrize("program", READ_DATA)
def test_data_is_not_read_from_a_terminal(program: str, place: dict[str, str]) -> None:
    done = on_terminal(arguments(program, place), "stdin", place)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().startswith(f"{program}: error: standard input is a terminal\n")
    assert not Path(place["target"]).exists()


@pytest.mark.parametrize("program", [p for p in PROGRAMS if "--passphrase-file" in options(p)])
def test_without_a_passphrase_and_a_terminal(program: str, place: dict[str, str], tmp_path: Path) -> None:
    data = beginning(b"secret", header.new_header("q", "gzip", 1 << 16), Settings("q", parameters=Parameters(10)))
    (tmp_path / "archive").write_bytes(data)
    words = ["list", tmp_path / "archive"] if program == "qb-backup" else arguments(program, place)[1:]
    done = run(program, *words, data=data)
    assert (done.returncode, done.stdout) == (2, b"")
    lines = done.stderr.decode().splitlines()
    assert lines[0].endswith(": error: no passphrase, and no terminal to ask for one")
    assert lines[1] == "hint: use --passphrase-file, --passphrase-fd or --passphrase-command"


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_cannot_be_written_is_a_failure(program: str) -> None:
    done = run("bash", "-c", f"{program} --help >/dev/full")
    assert done.returncode == 1 and done.stderr != b""


@pytest.mark.parametrize("program", ["qb-compress", "qb-volread", "qb-seal", "qb-tarwrite"])
def test_a_reader_that_left_ends_a_filter_quietly(program: str, place: dict[str, str]) -> None:
    words = f"head -c 64M /dev/zero | {' '.join(arguments(program, place))}"
    if program == "qb-tarwrite":
        words += " --raw --size 64M"
    elif program == "qb-volread":
        os.truncate(place["volume"], 64 << 20)
        words += " --raw"
    done = run("bash", "-c", f"{words} | true; echo ${{PIPESTATUS[-2]}}", QB_PASSPHRASE_FILE=place["passphrase"])
    assert (done.stdout, done.stderr) == (b"141\n", b"")
