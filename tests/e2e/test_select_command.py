"""qb-unseal --select-command: usage, an archive of which all chunks but the wanted are spoilt, interrupts."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from running import Running
from support import run
from zeros import archive_of_zeros

SIZES = {"qubes.xml": 100, "vm1/a": 600_000, "vm2/b": 300_000}
CMD = 'printf "%s %s\\n" "$QB_NAME" "$(wc -c)"'


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of the files in SIZES; `passphrase` beside it."""
    return archive_of_zeros(tmp_path_factory.mktemp("select"), SIZES)


def unseal(archive: Path, *words: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    secret = f"--passphrase-file={archive.parent}/passphrase"
    return run("qb-unseal", secret, *words, data=archive.read_bytes() if data is None else data)


@pytest.mark.parametrize("options", [(), ("--verify",)])
def test_the_first_file_and_those_that_are_selected(options: tuple[str, ...], archive: Path) -> None:
    """Of the others nothing but the last MAC is looked at, which the manifest binds."""
    data = bytearray(archive.read_bytes())
    for chunk in ("000", "001", "002"):
        data[data.index(f"vm1/a.{chunk}.enc".encode()) + 512 + 200] ^= 1
    words = ("--to-command", CMD, "--select-command", "echo vm2/b", *options)
    done = unseal(archive, *words, data=bytes(data))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"qubes.xml 100\nvm2/b 300000\n", b"")
    done = unseal(archive, "--to-command", CMD, "--select-command", "echo vm1/a", *options, data=bytes(data))
    assert (done.returncode, done.stdout) == (4, b"qubes.xml 100\n")


def test_what_is_missing_at_the_end(archive: Path) -> None:
    done = unseal(archive, "--to-command", CMD, "--select-command", "echo vm2/b; echo vm3/c")
    assert (done.returncode, done.stdout) == (4, b"qubes.xml 100\nvm2/b 300000\n")
    assert done.stderr == b"qb-unseal: error: vm3/c is not in the archive\nhint: qb-unseal --list says what is\n"


def test_one_that_fails_ends_the_run(archive: Path) -> None:
    done = unseal(archive, "--to-command", CMD, "--select-command", "echo vm2/b; exit 5")
    assert (done.returncode, done.stdout) == (1, b"qubes.xml 100\n")
    assert done.stderr == b"qb-unseal: error: the command that selects ended with status 5\n"


def test_a_first_file_that_fails_selects_nothing(archive: Path, tmp_path: Path) -> None:
    done = unseal(archive, "--to-command", "exit 3", "--select-command", f"touch {tmp_path}/selected")
    assert done.returncode == 1
    assert not (tmp_path / "selected").exists()


def test_a_first_file_that_is_not_read_to_its_end(archive: Path) -> None:
    done = unseal(archive, "--to-command", 'echo "$QB_NAME"', "--select-command", "echo vm1/a")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"qubes.xml\nvm1/a\n", b"")


@pytest.mark.parametrize(
    "words",
    [
        ("--select-command", "echo a"),
        ("--select-command", "echo a", "vm1/a"),
        ("--to-command", CMD, "--select-command", "echo a", "vm1/a"),
        ("--list", "--select-command", "echo a"),
    ],
)
def test_what_it_goes_with(words: tuple[str, ...], archive: Path) -> None:
    done = unseal(archive, *words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"the arguments do not fit together" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_end_while_it_selects(number: signal.Signals, archive: Path, tmp_path: Path) -> None:
    """No process stays, and no file is taken for selected."""
    with Running(tmp_path, archive.parent) as running:
        text = "exec qb-unseal --passphrase-file passphrase --to-command 'cat >/dev/null; echo $QB_NAME'"
        process = running.start(f"{text} --select-command 'head -c 20 /dev/zero | valve 10 | tr \"\\0\" a' <a.qb")
        running.hold()
        process.send_signal(number)
        status, stderr = running.end() if number != signal.SIGKILL else (process.wait(), "")
        assert (status, stderr) == (-number, "")
        if number == signal.SIGKILL:
            for pid in running.processes():
                os.kill(pid, 9)
        running.gone()


def test_no_progress_line_while_it_selects(archive: Path) -> None:
    """What it shows on the terminal, a question perhaps, stays to be read."""
    select = "printf '<' >&2; sleep 0.8; printf '>' >&2"  # longer than a line stays as it is
    words = ("--progress", "--to-command", "sleep 0.8; cat >/dev/null", "--select-command", select)
    done = unseal(archive, *words)
    assert done.returncode == 0
    assert b"\r\033[K<>" in done.stderr
