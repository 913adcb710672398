"""Programs that read and print bytes: limits of size and time, and the error for each way to end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import ROOT
from terminal import Terminal

from qbtools.errors import Failed
from qbtools.keys.exchange import Outcome, exchange, path_of, readable

Program = Callable[[str], list[str]]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Makes a program called `stand-in` out of bash text."""

    def make(text: str) -> list[str]:
        path = tmp_path / "stand-in"
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
        return [str(path)]

    return make


def talk(argv: list[str], data: bytes = b"", limit: int = 1000, patience: float | None = 20) -> Outcome:
    return exchange(argv, data, limit, pytest.fail, patience=patience)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_bytes_in_and_out(program: Program) -> None:
    before = descriptors()
    assert talk(program("exec tr a-z A-Z"), b"secret") == Outcome(0, b"SECRET", [])
    assert talk(program("exec wc -c"), bytes(1 << 20)).output == b"1048576\n"
    assert talk(program("exec head -c 5000 /dev/zero"), limit=5000).output == bytes(5000)
    assert descriptors() == before


def test_a_program_need_not_read(program: Program) -> None:
    assert talk(program("exec <&-; sleep 0.2; echo well"), bytes(1 << 20)).output == b"well\n"


def test_a_status_is_returned_with_the_messages(program: Program) -> None:
    outcome = talk(program("echo 'stand-in: error: no such key' >&2; echo second >&2; echo partly; exit 7"))
    assert outcome == Outcome(7, b"partly\n", ["error: no such key", "second"])


def test_messages_of_a_program_that_succeeds_are_warnings(program: Program) -> None:
    said: list[str] = []
    exchange(program("echo be careful >&2"), b"", 10, said.append)
    assert said == ["stand-in: be careful"]


def test_a_program_that_waits_for_the_user_shows_its_messages(program: Program) -> None:
    said: list[tuple[str, float]] = []
    begun = time.monotonic()
    exchange(
        program("echo 'touch the token' >&2; sleep 2.5"), b"", 10, lambda text: said.append((text, time.monotonic()))
    )
    [(text, when)] = said
    assert text == "stand-in: touch the token" and when < begun + 2.4


def test_more_than_the_limit_ends_it(program: Program) -> None:
    outcome = talk(program("exec cat /dev/zero"), limit=100)
    assert outcome.output == bytes(101)


@pytest.mark.parametrize("text", ["exec sleep 1000", "exec >&-; exec sleep 1000", "exec 2>&- sleep 1000"])
def test_a_program_that_hangs_is_killed(program: Program, text: str) -> None:
    before = descriptors()
    with pytest.raises(Failed, match=r"^stand-in does not end: it was killed after 1 seconds$"):
        talk(program(text), bytes(1 << 20), patience=1)
    assert descriptors() == before


@pytest.mark.parametrize("name", ["KILL", "TERM", "PIPE"])
def test_a_program_that_is_killed_has_failed(program: Program, name: str) -> None:
    with pytest.raises(Failed, match=f"^stand-in was killed by SIG{name}$"):
        talk(program(f"echo partly; kill -{name} $$"))


def test_one_that_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="cannot start nothing-here"):
        talk([str(tmp_path / "nothing-here")])
    with pytest.raises(Failed, match=r"^the program nothing-here is not installed$") as caught:
        path_of("nothing-here", "install it")
    assert caught.value.hint == "install it"


def test_its_environment(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASH_ENV", "/nonexistent")
    monkeypatch.setenv("QB_PASSPHRASE_FILE", "secret")
    argv = program('echo "${QB_PASSPHRASE_FILE-no} ${BASH_ENV-no} ${GIVEN-no}"')
    assert exchange(argv, b"", 100, pytest.fail, {"GIVEN": "yes"}).output == b"no no yes\n"


def test_what_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    assert readable(str(file), "the identity") == str(file)
    os.mkfifo(tmp_path / "fifo")
    assert readable(str(tmp_path / "fifo"), "the identity") == str(tmp_path / "fifo")
    with pytest.raises(Failed, match=r"^cannot read the identity /nonexistent: No such file or directory$"):
        readable("/nonexistent", "the identity")


@pytest.mark.parametrize("name", ["/dev/fd/3", "/dev/fd/0", "/dev/stdin"])
def test_a_low_descriptor_is_handed_on(name: str, tmp_path: Path) -> None:
    """The program has descriptors of ours at low numbers, and what we give it on its standard input."""
    text = """
import sys
from qbtools.keys.exchange import exchange, readable
path = readable(sys.argv[1], "the identity")
assert path != sys.argv[1]
print(exchange(["/bin/cat", path], b"", 100, print).output.decode())
"""
    (tmp_path / "file").write_text("what it holds")
    number = 3 if name.endswith("3") else 0
    done = subprocess.run(
        ["bash", "-c", f'exec {number}<{tmp_path}/file; exec {sys.executable} -c "$1" "$2"', "x", text, name],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    assert (done.stdout, done.stderr) == (b"what it holds\n", b"")


def test_the_terminal_is_left_as_it_was(program: Program) -> None:
    """A user who is asked for a passphrase may press ^C; then the program that asks is killed."""
    argv = program("trap '' INT; stty -echo </dev/tty; echo asking >/dev/tty; exec sleep 1000")
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from qbtools.keys.exchange import exchange
exchange({argv!r}, b"", 10, sys.exit)
"""
    with Terminal(sys.executable, "-c", code) as terminal:
        terminal.expect(b"asking")
        assert not terminal.echoes()
        terminal.type(b"\x03")
        assert b"KeyboardInterrupt" in terminal.finish().stderr
        assert terminal.echoes()
