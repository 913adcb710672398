"""The contract of the command line, tested with a small program of these tests."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import ROOT, environment, run

from qbtools import __version__
from qbtools.commands.cli import Invocation, parse_size
from qbtools.errors import UsageError, escape

DOC = """\
Usage: qb-test [options] [NAME]

A program for the tests.

Options:
  --alpha             A switch.
  --alpine            Another.
  --value V           A value [default: 7].
  -j N --jobs N       A value with a short name.
  -q --quiet          No warnings.
  -v --verbose        Notes.
  -h --help           This help.
  --version           The version.
"""

PROGRAM = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import os, signal
from qbtools import errors
from qbtools.commands import cli
def main(call):
    {{body}}
cli.run("qb-test", {DOC!r}, main)
"""


def program(body: str) -> list[str]:
    """The command that runs a program of this body."""
    return [sys.executable, "-c", PROGRAM.format(body=body)]


def called(*arguments: str, body: str = "print(call.options, file=sys.stderr)") -> subprocess.CompletedProcess[bytes]:
    return run(*program(body), *arguments)


def options_of(*arguments: str) -> dict[str, object]:
    done = called(*arguments)
    assert done.returncode == 0, done.stderr
    return dict(eval(done.stderr))  # noqa: S307  what our own program printed


# --- options ---


def test_defaults() -> None:
    options = options_of()
    assert options["--value"] == "7"
    assert (options["--alpha"], options["--jobs"], options["NAME"]) == (False, None, None)


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--value", "8"], "--value", "8"),
        (["--value=8"], "--value", "8"),
        (["--value="], "--value", ""),
        (["--value", "--alpha"], "--value", "--alpha"),
        (["-j", "3"], "--jobs", "3"),
        (["-j3"], "--jobs", "3"),
        (["-qj", "3"], "--jobs", "3"),
        (["--jobs", "3"], "--jobs", "3"),
        (["-qv"], "--verbose", True),
        (["--", "--unknown"], "NAME", "--unknown"),
        (["name", "--alpha"], "--alpha", True),
        (["-"], "NAME", "-"),
    ],
)
def test_ways_to_write_an_option(arguments: list[str], name: str, value: object) -> None:
    assert options_of(*arguments)[name] == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--unknown"], "unknown option: --unknown"),
        (["--unknown=3"], "unknown option: --unknown"),
        (["--alph"], "unknown option: --alph"),
        (["--val", "3"], "unknown option: --val"),
        (["--verb"], "unknown option: --verb"),
        (["--hel"], "unknown option: --hel"),
        (["--ver"], "unknown option: --ver"),
        (["-x"], "unknown option: -x"),
        (["-qx"], "unknown option: -x"),
        (["--alpha=yes"], "--alpha takes no value"),
        (["--value"], "--value needs a value"),
        (["-j"], "-j needs a value"),
        (["-qj"], "-j needs a value"),
        (["one", "two"], "unexpected argument: two"),
        (["--help", "--unknown"], "unknown option: --unknown"),
        (["--un\x1bknown"], r"unknown option: --un\x1bknown"),
    ],
)
def test_a_usage_error_is_one_line_and_a_hint(arguments: list[str], message: str) -> None:
    done = called(*arguments)
    assert done.returncode == 2
    assert done.stderr.decode() == f"qb-test: error: {message}\nhint: see qb-test --help\n"
    assert done.stdout == b""


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["-qh"], ["--version", "--help"], ["name", "--help", "x"]])
def test_help_is_the_text_itself(arguments: list[str]) -> None:
    done = called(*arguments, body="raise AssertionError")
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, DOC, b"")


def test_version() -> None:
    done = called("--version", body="raise AssertionError")
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"qb-test {__version__}\n", b"")


def test_help_after_two_dashes_is_an_argument() -> None:
    assert options_of("--", "--help")["NAME"] == "--help"


def test_help_that_cannot_be_written_is_a_failure() -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run([*program("pass"), "--help"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        b"qb-test: error: cannot write to standard output: No space left on device\n",
    )


# --- how a program ends ---


@pytest.mark.parametrize(
    ("statement", "status", "stderr"),
    [
        ("pass", 0, ""),
        ("raise errors.Failed('no luck')", 1, "qb-test: error: no luck\n"),
        ("raise errors.UsageError('not so', 'but so')", 2, "qb-test: error: not so\nhint: but so\n"),
        ("raise errors.WrongPassphrase('no')", 3, "qb-test: error: no\n"),
        ("raise errors.Damaged('no')", 4, "qb-test: error: no\n"),
        ("raise errors.Truncated('no')", 4, "qb-test: error: no\n"),
        ("raise errors.Refused('no')", 5, "qb-test: error: no\n"),
        ("open('/nowhere/x')", 1, "qb-test: error: /nowhere/x: No such file or directory\n"),
        ("os.close(99)", 1, "qb-test: error: Bad file descriptor\n"),
        (
            "raise ModuleNotFoundError(name='docopt')",
            1,
            "qb-test: error: the Python package docopt is not installed\nhint: see Install in README.md\n",
        ),
        ("raise MemoryError", 1, "qb-test: error: out of memory\n"),
        (
            "raise KeyError('k')",
            1,
            "qb-test: error: internal error: KeyError: 'k'\nhint: set QB_DEBUG=1 for a traceback\n",
        ),
        ("raise errors.Failed('a\\nb\\x1b[31mc\\u202ed')", 1, "qb-test: error: a\\nb\\x1b[31mc\\u202ed\n"),
        ("raise errors.Failed('bad \\udcff name')", 1, "qb-test: error: bad \\udcff name\n"),
        ("raise errors.Failed('x', 'a\\nb')", 1, "qb-test: error: x\nhint: a\\nb\n"),
        ("call.warn('careful\\x07')", 0, "qb-test: warning: careful\\x07\n"),
        ("call.note('doing')", 0, ""),
    ],
)
def test_status_and_message(statement: str, status: int, stderr: str) -> None:
    done = called(body=statement)
    assert (done.returncode, done.stderr.decode(), done.stdout) == (status, stderr, b"")


def test_quiet_leaves_warnings_and_verbose_brings_notes() -> None:
    assert called("-q", body="call.warn('x')").stderr == b"qb-test: warning: x\n"
    assert called("-q", body="call.say('x')").stderr == b""
    assert called("-v", body="call.note('x')").stderr == b"qb-test: x\n"


def test_a_traceback_only_when_asked_for() -> None:
    command = program("raise errors.Damaged('no')")
    done = run(*command, QB_DEBUG="1")
    assert done.returncode == 4
    assert done.stderr.startswith(b"Traceback") and done.stderr.endswith(b"qb-test: error: no\n")
    assert b"Traceback" not in run(*command, QB_DEBUG="0").stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_runs_the_cleanup_and_then_ends_the_program(number: signal.Signals) -> None:
    done = called(
        body=f"""
    try:
        os.kill(os.getpid(), {int(number)})
        signal.pause()
    finally:
        for again in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), again)  # no second one breaks the cleanup off
        os.write(2, b"clean")
"""
    )
    assert (done.returncode, done.stderr) == (-number, b"clean")


CALLBACKS = {
    "of a weak reference": "held = [Thing()]; reference = weakref.ref(held[0], strike); held.clear()",
    "of an object that goes": "Thing.__del__ = strike; Thing()",
}


@pytest.mark.parametrize("code", CALLBACKS.values(), ids=CALLBACKS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_a_callback_whose_errors_python_drops(number: signal.Signals, code: str) -> None:
    done = called(
        body=f"""
    import time, weakref
    from qbtools.latesignals import signals_later
    class Thing:
        pass
    def strike(_):
        os.kill(os.getpid(), {int(number)})
    try:
        {code}
        with signals_later():
            os.write(2, b"after, ")
            time.sleep(0.2)
            os.write(2, b"not within, ")
        time.sleep(60)
    finally:
        os.write(2, b"clean")
"""
    )
    assert (done.returncode, done.stderr) == (-number, b"after, not within, clean")


def test_a_signal_while_an_error_is_handled() -> None:
    done = called(
        body="""
    class Odd(Exception):
        @property
        def __class__(self):  # isinstance asks for it
            os.kill(os.getpid(), signal.SIGTERM)
            return Exception
    raise Odd
"""
    )
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, b"")


def test_what_else_python_drops_is_shown() -> None:
    done = called(body="Thing = type('Thing', (), {'__del__': lambda _: 1 / 0}); Thing()")
    assert b"ZeroDivisionError" in done.stderr and done.returncode == 0


def test_an_ignored_hangup_stays_ignored() -> None:
    done = subprocess.run(
        ["bash", "-c", "trap '' HUP; exec \"$@\"", "-", *program("os.kill(os.getpid(), signal.SIGHUP)")],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_left_ends_a_filter_quietly() -> None:
    done = called(
        body="""
    out, held = call.stdout(), os.pipe()
    os.dup2(held[1], 1); os.close(held[0]); os.close(held[1])
    try:
        out.write(b"x")
    finally:
        os.write(2, b"clean")
"""
    )
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"clean")


def test_a_message_is_one_write() -> None:
    # Lines of two stages of a pipe must not mix: a datagram socket keeps writes apart.
    import socket

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        subprocess.run(program("raise errors.Failed('one', 'two')"), stderr=theirs, check=False)
        ours.setblocking(False)
        assert [ours.recv(4096), ours.recv(4096)] == [b"qb-test: error: one\n", b"hint: two\n"]


# --- standard descriptors ---


def on_terminal(command: list[str], which: str) -> tuple[int, bytes]:
    """Status and stderr of a command one of whose descriptors (`stdin`, `stdout`) is a terminal."""
    ours, theirs = pty.openpty()
    streams: dict[str, int] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, which: theirs}
    try:
        done = subprocess.run(command, stderr=subprocess.PIPE, check=False, env=environment(), **streams)  # type: ignore[call-overload]
    finally:
        os.close(ours)
        os.close(theirs)
    return done.returncode, done.stderr


def test_binary_data_is_not_written_to_a_terminal() -> None:
    status, stderr = on_terminal(program("call.stdout()"), "stdout")
    assert status == 2
    assert stderr == (
        b"qb-test: error: refusing to write binary data to a terminal\nhint: redirect it to a file or a pipe\n"
    )
    assert on_terminal(program("call.stdout(binary=False)"), "stdout") == (0, b"")


def test_data_is_not_read_from_a_terminal() -> None:
    status, stderr = on_terminal(program("call.stdin()"), "stdin")
    assert (status, stderr) == (2, b"qb-test: error: standard input is a terminal\nhint: see qb-test --help\n")


@pytest.mark.parametrize(
    ("redirection", "use", "message"),
    [
        ("<&-", "call.stdin().read_some(1)", "cannot read standard input: Bad file descriptor"),
        (">&-", "call.stdout().write(b'x')", "cannot write to standard output: Bad file descriptor"),
    ],
)
def test_a_closed_descriptor_is_not_taken_over_by_a_file(
    redirection: str, use: str, message: str, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"data")
    body = f"fd = os.open({str(victim)!r}, os.O_RDWR)\n    {use}"
    done = run("bash", "-c", f'"$@" {redirection}', "-", *program(body))
    assert (done.returncode, done.stderr.decode()) == (1, f"qb-test: error: {message}\n")
    assert victim.read_bytes() == b"data"


def test_too_many_open_files() -> None:
    done = run("bash", "-c", 'ulimit -n 8; "$@"', "-", *program("[os.open('/', os.O_RDONLY) for _ in range(8)]"))
    message = b"qb-test: error: /: Too many open files\nhint: ulimit -n shows the limit\n"
    assert (done.returncode, done.stderr) == (1, message)


def test_a_closed_stderr_changes_no_status() -> None:
    assert run("bash", "-c", '"$@" 2>&-', "-", *program("raise errors.Refused('x')")).returncode == 5


@pytest.mark.parametrize("setting", ["-u PATH", "PATH="])
def test_without_a_path_the_usual_one_is_used(setting: str) -> None:
    done = run("bash", "-c", f'env {setting} "$@"', "-", *program("os.execvp('true', ['true'])"))
    assert (done.returncode, done.stderr) == (0, b"")


# --- values ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("4096", 4096),
        ("007", 7),
        ("1K", 1024),
        ("100M", 104857600),
        ("1.5G", 3 << 29),
        ("0.5K", 512),
        ("1.0", 1),
        ("2T", 2 << 40),
        ("8P", 8 << 50),
        ("9223372036854775807", (1 << 63) - 1),
    ],
)
def test_a_size(text: str, value: int) -> None:
    assert parse_size(text) == value


@pytest.mark.parametrize(
    "text",
    # Powers of 1024 only, so no kB and no MiB; no part of a byte; digits of ASCII only.
    ["", "K", "-1", "+1", " 1", "1 ", "1\n", "1k", "1MB", "1MiB", "1e3", "0x10", "1,5G", ".5G", "1.G", "1.5", "0.3K"]
    + ["\u0661", "1_000", "nan", "9" * 20, "1.0000000001K", "1.5.5G"],
)
def test_not_a_size(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


def invocation(**options: str) -> Invocation:
    return Invocation("qb-test", {f"--{name}": value for name, value in options.items()})


def test_a_size_option_has_bounds() -> None:
    assert invocation(size="1K").size("--size", 1024, 1024) == 1024
    assert invocation(size="8P").size("--size") == 1 << 53
    for text, low, high in (("1K", 1025, 4096), ("5K", 1, 4096), ("9999P", 0, (1 << 63) - 1)):
        with pytest.raises(UsageError, match=f"^--size: must be between {low} and {high} bytes$"):
            invocation(size=text).size("--size", low, high)
    with pytest.raises(UsageError, match="^--size: not a size: 1 GB$") as caught:
        invocation(size="1 GB").size("--size")
    assert caught.value.hint == "write 4096, 100M or 1.5G"


@pytest.mark.parametrize("text", ["", "0", "23", "-1", "1.0", "1K", "x", "\u0661", "1" * 19, " 5", "5\n"])
def test_a_number_option_has_bounds(text: str) -> None:
    assert invocation(logn="22").number("--logn", 1, 22) == 22
    with pytest.raises(UsageError, match="^--logn: must be a number between 1 and 22$"):
        invocation(logn=text).number("--logn", 1, 22)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text / 1", "plain text / 1"),
        ("ünï", "ünï"),
        ("a\tb\r\n", "a\\tb\\r\\n"),
        ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
        ("\x9b1m", "\\x9b1m"),
        ("\u202egpj", "\\u202egpj"),
        ("\udc80", "\\udc80"),
    ],
)
def test_escape(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_main_gets_the_arguments_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    # argv in place of sys.argv: what a program that calls another one in its own process would pass.
    from qbtools.commands import cli

    seen: list[object] = []
    main: Callable[[Invocation], None] = lambda call: seen.append((call.program, call.quiet, call.verbose))  # noqa: E731
    monkeypatch.setattr(cli, "_leave", seen.append)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        cli.run("qb-test", DOC, main, ["-v"])  # type: ignore[unreachable,unused-ignore]
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert seen == [("qb-test", False, True), 0]
