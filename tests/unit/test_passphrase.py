"""Where a passphrase comes from, in which order, and which ones are refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, run
from terminal import Terminal

from qbtools.errors import Failed, QbError, Refused, UsageError
from qbtools.passphrase import MAX_SIZE, obtain


def secret_file(path: Path, data: bytes, mode: int = 0o600) -> str:
    path.write_bytes(data)
    path.chmod(mode)
    return str(path)


def no_warning(text: str) -> None:
    pytest.fail(f"a warning: {text}")


def descriptor(data: bytes) -> int:
    """The read end of a pipe that holds data."""
    ours, theirs = os.pipe()
    os.write(theirs, data)
    os.close(theirs)
    return ours


def given(
    options: dict[str, str], environment: dict[str, str] | None = None, sealing: bool = False, warn: object = no_warning
) -> bytes:
    named: dict[str, str | None] = dict.fromkeys(("--passphrase-file", "--passphrase-fd", "--passphrase-command"))
    named.update({f"--passphrase-{name}": value for name, value in options.items()})
    return obtain(named, environment or {}, sealing, warn)  # type: ignore[arg-type]


def from_bytes(data: bytes, tmp_path: Path, sealing: bool = False, warn: object = no_warning) -> bytes:
    return given({"file": secret_file(tmp_path / "passphrase", data)}, {}, sealing, warn)


# --- the order ---


def test_the_first_source_that_is_given_wins(tmp_path: Path) -> None:
    file = secret_file(tmp_path / "file", b"variable file")
    secret_file(tmp_path / "qb-passphrase", b"credential")
    environment = {
        "QB_PASSPHRASE_FILE": file,
        "QB_PASSPHRASE_COMMAND": "printf 'variable command'",
        "CREDENTIALS_DIRECTORY": str(tmp_path),
    }
    assert given({"file": secret_file(tmp_path / "option", b"option")}, environment) == b"option"
    assert given({"fd": str(descriptor(b"fd"))}, environment) == b"fd"
    assert given({"command": "printf command"}, environment) == b"command"
    assert given({}, environment) == b"variable file"
    del environment["QB_PASSPHRASE_FILE"]
    assert given({}, environment) == b"variable command"
    environment["QB_PASSPHRASE_COMMAND"] = ""  # empty is as good as not set
    assert given({}, environment) == b"credential"


@pytest.mark.parametrize("names", [("file", "fd"), ("fd", "command"), ("file", "command"), ("file", "fd", "command")])
def test_two_options_exclude_each_other(names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="exclude each other$"):
        given(dict.fromkeys(names, "0"))


# --- each source ---


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700, 0o620])
def test_a_file_of_ones_own(tmp_path: Path, mode: int) -> None:
    assert given({"file": secret_file(tmp_path / "f", b"secret\n", mode)}) == b"secret"


def test_a_byte_order_mark_counts_and_gets_a_warning(tmp_path: Path) -> None:
    warnings: list[str] = []
    path = secret_file(tmp_path / "f", b"\xef\xbb\xbfsecret\r\n")
    for sealing in (False, True):
        found = obtain({"--passphrase-file": path}, {}, sealing, warnings.append)
        assert found == b"\xef\xbb\xbfsecret"
    assert warnings == ["the passphrase begins with a UTF-8 byte order mark, which is a part of it"] * 2


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o666])
def test_a_file_that_others_can_read_gets_a_warning(tmp_path: Path, mode: int) -> None:
    warnings: list[str] = []
    path = secret_file(tmp_path / "f", b"secret\n", mode)
    assert given({"file": path}, warn=warnings.append) == b"secret"
    assert given({}, {"QB_PASSPHRASE_FILE": path}, warn=warnings.append) == b"secret"
    assert warnings == [f"the passphrase file {path} can be read by others"] * 2


def test_a_pipe_by_name_gets_no_warning() -> None:
    fd = descriptor(b"secret\n")  # <(...) of a shell
    try:
        assert given({"file": f"/dev/fd/{fd}"}) == b"secret"
    finally:
        os.close(fd)


def test_a_file_that_comes_in_pieces(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")
    writer = subprocess.Popen(["bash", "-c", "(printf sec; sleep 0.1; echo ret) >$0", tmp_path / "f"])
    with writer:
        assert given({"file": str(tmp_path / "f")}) == b"secret"


@pytest.mark.parametrize("where", ["nothing", "", "nothing/f"])
def test_a_file_that_cannot_be_read(tmp_path: Path, where: str) -> None:
    path = str(tmp_path / where) if where else str(tmp_path)
    for options, environment in (({"file": path}, {}), ({}, {"QB_PASSPHRASE_FILE": path})):
        with pytest.raises(Failed, match=f"^cannot read the passphrase from {path}: (No such file|Is a directory)"):
            given(options, environment)


def test_a_file_name_that_is_empty_is_not_passed_over() -> None:
    with pytest.raises(Failed, match="^cannot read the passphrase from : No such file"):
        given({"file": ""}, {"QB_PASSPHRASE_COMMAND": "printf other"})


def test_a_descriptor_is_closed_after_reading() -> None:
    fd = descriptor(b"secret\n")
    assert given({"fd": str(fd)}) == b"secret"
    with pytest.raises(OSError):
        os.fstat(fd)


@pytest.mark.parametrize("text", ["", "x", "-1", "+3", "3 ", "0x3", "1.0", "\u0663", "9" * 10])
def test_not_a_descriptor(text: str) -> None:
    with pytest.raises(UsageError, match="^--passphrase-fd: not a descriptor: "):
        given({"fd": text})


def test_a_descriptor_that_is_not_open() -> None:
    with pytest.raises(Failed, match="^cannot read the passphrase from descriptor 999: Bad file descriptor$"):
        given({"fd": "999"})


def test_what_a_command_prints() -> None:
    assert given({"command": "printf 'sec'; sleep 0.1; echo ret"}) == b"secret"
    assert given({"command": "cat; echo secret"}) == b"secret"  # its stdin is no business of ours


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("echo secret; exit 3", "^the passphrase command ended with status 3$"),
        ("(exit 4) | echo secret", "^the passphrase command stage 1 of 2 ended with status 4$"),
        ("echo secret; kill -9 $$", "^the passphrase command was killed by SIGKILL$"),
        ("printf secret; kill -PIPE $$", "^the passphrase command was killed by SIGPIPE$"),
        ("no-such-program-anywhere", "^the passphrase command ended with status 127$"),
    ],
)
def test_a_command_that_fails(command: str, message: str) -> None:
    with pytest.raises(Failed, match=message) as caught:
        given({"command": command})
    assert "secret" not in str(caught.value)


def test_a_command_that_prints_too_much() -> None:
    with pytest.raises(Refused, match="more than 1024 bytes$"):
        given({"command": "yes"})


def test_a_credential_of_systemd(tmp_path: Path) -> None:
    secret_file(tmp_path / "qb-passphrase", b"secret\n", 0o400)
    assert given({}, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == b"secret"
    (tmp_path / "qb-passphrase").chmod(0o440)  # so it looks to a service with a user of its own
    assert given({}, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == b"secret"


# --- the newline, and the bounds ---


@pytest.mark.parametrize(
    ("data", "passphrase"),
    [
        (b"secret", b"secret"),
        (b"secret\n", b"secret"),
        (b"secret\r\n", b"secret"),
        (b" two words ", b" two words "),
        (b"\tsecret\n", b"\tsecret"),
        (b"secret\r", b"secret\r"),
        (b"secret\r\r\n", b"secret\r"),
        (b"\xff\xfe\n", b"\xff\xfe"),
        (b"x" * MAX_SIZE, b"x" * MAX_SIZE),
        (b"x" * MAX_SIZE + b"\n", b"x" * MAX_SIZE),
        (b"x" * MAX_SIZE + b"\r\n", b"x" * MAX_SIZE),
        (("ü" * (MAX_SIZE // 2)).encode(), ("ü" * (MAX_SIZE // 2)).encode()),
    ],
)
def test_one_newline_is_taken_off_and_nothing_else(data: bytes, passphrase: bytes, tmp_path: Path) -> None:
    assert from_bytes(data, tmp_path) == passphrase


TOO_MUCH = "^the passphrase has more than 1024 bytes$"


@pytest.mark.parametrize("sealing", [False, True])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "^the passphrase is empty$"),
        (b"\n", "^the passphrase is empty$"),
        (b"\r\n", "^the passphrase is empty$"),
        (b"x" * (MAX_SIZE + 1), TOO_MUCH),
        (b"x" * (MAX_SIZE + 1) + b"\n", TOO_MUCH),
        (b"x" * (MAX_SIZE + 1) + b"\r\n", TOO_MUCH),
        (b"x" * (MAX_SIZE + 2) + b"\r\n", TOO_MUCH),
        (b"x" * MAX_SIZE + b"\n\n", TOO_MUCH),
        (b"x" * 100_000, TOO_MUCH),
    ],
)
def test_empty_and_too_long(data: bytes, message: str, sealing: bool, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=message):
        from_bytes(data, tmp_path, sealing)


@pytest.mark.parametrize("data", [b"a\0b", b"a\nb", b"\n\n", b"a\n\n", b"\0"])
def test_what_no_archive_can_have_is_refused_when_opening(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="^the passphrase contains a NUL byte or a newline$"):
        from_bytes(data, tmp_path)


@pytest.mark.parametrize("byte", [*range(0x20), 0x7F])
def test_control_characters_are_refused_when_sealing(byte: int, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="^the passphrase contains a control character"):
        from_bytes(b"a%cb" % byte, tmp_path, sealing=True)
    if byte not in (0, 10):
        assert from_bytes(b"a%cb" % byte, tmp_path) == b"a%cb" % byte


@pytest.mark.parametrize("data", [b"\xff", b"a\xc3", b"\xc0\x80", b"\xed\xa0\x80", "ü".encode("latin-1")])
def test_what_is_not_utf_8_is_refused_when_sealing(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="^the passphrase is not UTF-8"):
        from_bytes(data, tmp_path, sealing=True)
    assert from_bytes(data, tmp_path) == data


@pytest.mark.parametrize("text", ["pass ", "pass  ", "pass\u00a0", "pass\u3000", " "])
def test_white_space_at_the_end_gets_a_warning_when_sealing(text: str, tmp_path: Path) -> None:
    warnings: list[str] = []
    assert from_bytes(f"{text}\n".encode(), tmp_path, True, warnings.append) == text.encode()
    assert warnings == ["the passphrase ends with white space, which Qubes removes"]
    assert from_bytes(f"{text}\n".encode(), tmp_path) == text.encode()


@pytest.mark.parametrize("text", [" pass", "pa ss", "päss€𝄞", "x" * MAX_SIZE])
def test_what_everybody_can_read_is_taken_as_it_is(text: str, tmp_path: Path) -> None:
    assert from_bytes(text.encode() + b"\n", tmp_path, sealing=True) == text.encode()


def test_no_message_holds_the_passphrase(tmp_path: Path) -> None:
    for data in (b"hunter2\0", b"hunter2\x07", b"hunter2\xff", b"hunter2" * 200, b"hunter2\nx"):
        with pytest.raises(QbError) as caught:
            from_bytes(data, tmp_path, sealing=True)
        assert "hunter2" not in caught.value.message + (caught.value.hint or "")


# --- the terminal ---

ASK = """
import os, sys
sys.path.insert(0, {root!r})
from qbtools import passphrase
from qbtools.commands import cli
def main(call):
    secret = passphrase.obtain({{}}, os.environ, {sealing}, call.warn)
    sys.stdout.buffer.write(secret)
    sys.stdout.flush()
cli.run("qb-ask", "Usage: qb-ask", main)
"""


def asking(sealing: bool) -> list[str]:
    return [sys.executable, "-c", ASK.format(root=str(ROOT), sealing=sealing)]


def test_without_source_and_terminal() -> None:
    done = run(*asking(False))
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == (
        b"qb-ask: error: no passphrase, and no terminal to ask for one\n"
        b"hint: use --passphrase-file, --passphrase-fd or --passphrase-command\n"
    )


def test_a_credentials_directory_without_ours_is_passed_over(tmp_path: Path) -> None:
    assert run(*asking(False), CREDENTIALS_DIRECTORY=str(tmp_path)).returncode == 2


def test_the_terminal_is_asked_once_when_opening() -> None:
    with Terminal(*asking(False)) as terminal:
        terminal.expect(b"passphrase: ")
        assert not terminal.echoes()
        terminal.type(b"sec ret\n")
        done = terminal.finish()
        assert terminal.echoes()
    assert (done.returncode, done.stdout, done.stderr) == (0, b"sec ret", b"")
    assert terminal.said == b"passphrase: \r\n"


def test_the_terminal_is_asked_twice_when_sealing() -> None:
    with Terminal(*asking(True)) as terminal:
        terminal.expect(b"passphrase: ")
        terminal.type("gehäim\n".encode())
        terminal.expect(b"passphrase again: ")
        assert not terminal.echoes()
        terminal.type("gehäim\n".encode())
        done = terminal.finish()
        assert terminal.echoes()
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, "gehäim", b"")
    assert terminal.said == b"passphrase: \r\npassphrase again: \r\n"


def answer_twice(terminal: Terminal, first: bytes, second: bytes) -> None:
    """Types two answers to the question that comes next."""
    for prompt, typed in ((b"passphrase: ", first), (b"passphrase again: ", second)):
        terminal.expect(prompt)
        assert not terminal.echoes()
        terminal.said = b""
        terminal.type(typed + b"\n")


@pytest.mark.parametrize("wrong", [1, 2])
def test_two_answers_that_differ_are_asked_for_again(wrong: int) -> None:
    with Terminal(*asking(True)) as terminal:
        for _ in range(wrong):
            answer_twice(terminal, b"hunter2", b"hunter3")
            terminal.expect(b"\r\nthe two passphrases differ\r\npassphrase: ")
        answer_twice(terminal, b"hunter4", b"hunter4")
        done = terminal.finish()
        assert terminal.echoes()
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hunter4", b"")
    assert terminal.said == b"\r\n"


def test_three_times_two_answers_that_differ() -> None:
    with Terminal(*asking(True)) as terminal:
        for _ in range(3):
            answer_twice(terminal, b"hunter2", b"hunter3")
        done = terminal.finish()
        assert terminal.echoes()
    assert (done.returncode, done.stdout) == (5, b"")
    assert done.stderr == b"qb-ask: error: the two passphrases differ, 3 times\n"
    assert terminal.said == b"\r\n"


@pytest.mark.parametrize(
    ("typed", "status", "message"),
    [
        (b"\n", 5, b"the passphrase is empty"),
        (b"\x04", 5, b"the passphrase is empty"),
        (b"x" * 1024 + b"\n", 0, None),
        (b"x" * 1025 + b"\n", 5, b"the passphrase has more than 1024 bytes"),
        (b"x" * 3000 + b"\n", 5, b"the passphrase has more than 1024 bytes"),
        (b"wrong\x15right\n", 0, None),  # ^U, as the terminal does it
    ],
)
def test_what_is_typed(typed: bytes, status: int, message: bytes | None) -> None:
    with Terminal(*asking(False)) as terminal:
        terminal.expect(b"passphrase: ")
        terminal.type(typed)
        done = terminal.finish()
        assert terminal.echoes()
    assert done.returncode == status
    assert done.stderr == (b"" if message is None else b"qb-ask: error: " + message + b"\n")


@pytest.mark.parametrize("sealing", [False, True])
def test_an_interrupt_at_the_prompt_gives_the_echo_back(sealing: bool) -> None:
    with Terminal(*asking(sealing)) as terminal:
        terminal.expect(b"passphrase: ")
        assert not terminal.echoes()
        terminal.type(b"hunt\x03")
        done = terminal.finish()
        assert terminal.echoes()
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def test_only_the_sources_that_need_it_use_the_terminal(tmp_path: Path) -> None:
    path = secret_file(tmp_path / "f", b"secret\n")
    with Terminal(*asking(True), QB_PASSPHRASE_FILE=path) as terminal:
        done = terminal.finish()
    assert (done.returncode, done.stdout, terminal.said) == (0, b"secret", b"")
