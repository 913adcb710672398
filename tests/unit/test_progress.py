"""The progress line: its text, when it is shown, and that it never breaks the run that it shows."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest
from support import ROOT, environment, missing, run
from terminal import Terminal

from qbtools import progress, progressline, reports
from qbtools.processes import start_source

WATCH = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
sys.modules["tqdm"] = None  # as if it were not installed
from qbtools import progress, progressline
progressline.INTERVAL = 0.01
def watched(display):
    return progress.shown(lambda: 3 << 20, lambda: 12 << 20, lambda: "vm1:root", display)
"""


def watch(body: str) -> subprocess.CompletedProcess[bytes]:
    return run(sys.executable, "-c", WATCH + body, ROOT)


def need_tqdm() -> None:
    if importlib.util.find_spec("tqdm") is None:
        missing("the module tqdm is not there")


@pytest.fixture(params=["tqdm", "plain"])
def renderer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """With tqdm, and as if it were not installed."""
    if request.param == "plain":
        monkeypatch.setitem(sys.modules, "tqdm", None)
    else:
        need_tqdm()
    yield request.param


def test_any_numbers_make_one_line(renderer: str) -> None:
    # More than the total, nothing at all, no time gone by: a line still, and no error.
    totals = [None, 0, 1 << 20, 1 << 30, 1 << 60]
    counts = [0, 1, 1 << 20, (1 << 20) + 1, 1 << 59]
    for done, total, seconds in itertools.product(counts, totals, [0.0, 0.001, 1.0, 1e6]):
        line = progressline.render(done, total, seconds, "vm1:root")
        assert line.startswith("vm1:root: ") and "\n" not in line and "\r" not in line


def test_a_name_reaches_the_terminal_without_control_characters(renderer: str) -> None:
    assert r"a\x1b[2Jb\n\u202e" in progressline.render(1, 2, 1.0, "a\033[2Jb\n\u202e")


def test_tqdm_says_how_far_how_fast_and_how_long_still() -> None:
    need_tqdm()
    line = progressline.render(1 << 30, 4 << 30, 10.0, "vm1:root")
    assert re.fullmatch(r"vm1:root:  25%\|.*\| 1\.00G/4\.00G \[00:10<00:30, 107MB/s\]", line), line


@pytest.mark.parametrize(
    ("done", "total", "seconds", "line"),
    [
        (1 << 30, 4 << 30, 10.0, "x: 25%, 1.0 GiB of 4.0 GiB, 102.4 MiB/s, 00:10, 00:30 left"),
        (1 << 30, None, 10.0, "x: 1.0 GiB, 102.4 MiB/s, 00:10"),
        (0, 1 << 20, 0.0, "x: 0%, 0 B of 1.0 MiB, 0 B/s, 00:00"),
        (1023, 2048, 1.0, "x: 49%, 1023 B of 2.0 KiB, 1023 B/s, 00:01, 00:01 left"),
        (4096, 2048, 1.0, "x: 100%, 4.0 KiB of 2.0 KiB, 4.0 KiB/s, 00:01"),
        (5 << 50, None, 1.0, "x: 5120.0 TiB, 5120.0 TiB/s, 00:01"),
    ],
)
def test_the_line_without_tqdm(
    monkeypatch: pytest.MonkeyPatch, done: int, total: int | None, seconds: float, line: str
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert progressline.render(done, total, seconds, "x") == line


def test_hours_and_what_was_read_ahead(renderer: str) -> None:
    line = progressline.render(1 << 30, 8 << 30, 1000.0, "x", ahead=3 << 30)
    if renderer == "plain":
        assert line == "x: 12%, 1.0 GiB of 8.0 GiB, 1.0 MiB/s, 16:40, 1:56:40 left, 3.0 GiB read"
    assert line.startswith("x: ") and "3.0 GiB read" in line
    assert "read" not in progressline.render(5, 8, 1.0, "x", ahead=5)


def test_a_forced_line_hints_at_tqdm_once() -> None:
    done = watch("print(progress.wanted(True, False), progress.wanted(True, True), progress.wanted(False, False))")
    assert done.stdout == b"True False False\n"
    assert done.stderr == b"hint: install the Python package tqdm for a progress bar\n"


def test_a_stage_in_a_cmd_is_called_as_the_cmd_says() -> None:
    told = reports.Reports()
    telling = WATCH + "with progress.shown(lambda: 1, lambda: None, lambda: 'vm1.img', False, end=True): pass"
    environ = {**environment(), **told.environment, "QB_LABEL": "work:root"}
    subprocess.run([sys.executable, "-c", telling, ROOT], env=environ, pass_fds=[told.fd], check=True)
    told.collect()
    assert told.label == "work:root"


def test_tqdm_is_loaded_only_when_a_line_is_shown() -> None:
    body = """
del sys.modules["tqdm"]
with watched(False):
    pass
print("tqdm" in sys.modules)
"""
    assert watch(body).stdout == b"False\n"


WANTED = """
import sys
sys.path.insert(0, sys.argv[1])
from qbtools import progress, progressline, reports
from qbtools.processes import start_source
print(progress.wanted(sys.argv[2] == "forced", sys.argv[3] == "quiet"))
"""


@pytest.mark.parametrize(
    ("shell", "forced", "quiet", "shown"),
    [
        ("exec $PYTHON 2>/dev/null", "", "", False),
        ("exec $PYTHON 2>/dev/null", "forced", "", True),
        ("exec $PYTHON 2>/dev/null", "forced", "quiet", False),
        ("exec $PYTHON 2>/dev/tty", "", "", True),
        ("exec $PYTHON 2>/dev/tty", "", "quiet", False),
        ("true | $PYTHON 2>/dev/tty | cat", "", "", True),  # a stage of a pipe typed by hand
        ("setsid -w $PYTHON 2>/dev/tty", "", "", False),  # a CMD of ours: who runs it shows the line
        ("setsid -w $PYTHON 2>/dev/tty", "forced", "", True),
        ("set -m; $PYTHON 2>/dev/tty & wait $!", "", "", False),  # in the background
    ],
)
def test_when_the_line_is_shown(shell: str, forced: str, quiet: str, shown: bool) -> None:
    text = shell.replace("$PYTHON", '"$@"')
    with Terminal("bash", "-c", text, "-", sys.executable, "-c", WANTED, str(ROOT), forced, quiet) as terminal:
        done = terminal.finish()
    assert done.stdout.decode() == f"{shown}\n"


CLOCK = rb"([0-9]+:)?[0-9]{2}:[0-9]{2}"
LINE = rb"vm1:root: 25%, 3\.0 MiB of 12\.0 MiB, [0-9.]+ [KMGT]?i?B/s, " + CLOCK + rb"(, " + CLOCK + rb" left)?"


def test_the_line_renews_itself_and_stays_at_the_end() -> None:
    done = watch("with watched(True):\n    time.sleep(0.2)\n")
    assert (done.returncode, done.stdout) == (0, b"")
    first, *lines = done.stderr.split(b"\r\x1b[K")
    assert first == b"" and len(lines) >= 2
    for line in lines[:-1]:
        assert re.fullmatch(LINE, line), line
    assert re.fullmatch(LINE + rb"\n", lines[-1])


def test_nothing_is_shown_if_it_is_not_wanted() -> None:
    done = watch("with watched(False):\n    time.sleep(0.1)\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("display", [False, True])
def test_sigusr1_prints_one_line(display: bool) -> None:
    body = f"""
progressline.INTERVAL = 99
with watched({display}):
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR1)
    time.sleep(0.1)
"""
    done = watch(body)
    assert done.returncode == 0
    lines = done.stderr.split(b"\n")[: 2 if display else None]
    assert len(lines) == 2 if display else lines.pop() == b""
    for line in lines:
        assert re.fullmatch(LINE, line), line


@pytest.mark.parametrize("display", [False, True])
def test_an_error_passes_through(display: bool) -> None:
    done = watch(f"with watched({display}):\n    raise KeyError('mine')\n")
    assert done.returncode == 1 and done.stderr.endswith(b"KeyError: 'mine'\n")


def test_a_stderr_that_cannot_be_written_breaks_nothing() -> None:
    body = "with watched(True):\n    time.sleep(0.1)\n    os.kill(os.getpid(), signal.SIGUSR1)\nprint('done')\n"
    for redirection in ("2>&-", "2>/dev/full"):
        done = run("bash", "-c", f'"$@" {redirection}', "-", sys.executable, "-c", WATCH + body, ROOT)
        assert (done.returncode, done.stdout) == (0, b"done\n")


def test_a_read_goes_on_behind_sigusr1() -> None:
    body = """
ours, theirs = os.pipe()
with watched(False):
    if os.fork() == 0:
        time.sleep(0.1)
        os.kill(os.getppid(), signal.SIGUSR1)
        time.sleep(0.1)
        os.write(theirs, b"data")
        os._exit(0)
    print(os.read(ours, 100))
"""
    done = watch(body)
    assert done.stdout == b"b'data'\n" and re.fullmatch(LINE + rb"\n", done.stderr)


def test_a_board_adds_up_the_progress_of_the_stages_of_each_cmd() -> None:
    board = progress.Board()
    telling = (
        WATCH
        + "with progress.shown(lambda: int(sys.argv[2]), lambda: None, lambda: sys.argv[3], False, end=True): pass"
    )
    for done, label in ((1000, "a long name/root.img"), (7, "b")):
        command = start_source(shlex.join([sys.executable, "-c", telling, str(ROOT), str(done), label]), {})
        board.follow(command.progress)
        assert not command.finish().failed
        assert board.label == label
    assert board.done == 1007


def test_only_the_end_of_a_pipe_reports() -> None:
    told = reports.Reports()
    silent = WATCH + "with watched(False): pass"
    environ = {**environment(), **told.environment}
    subprocess.run([sys.executable, "-c", silent, ROOT], env=environ, pass_fds=[told.fd], check=True)
    told.collect()
    assert (told.done, told.label) == (0, "")


@pytest.mark.parametrize(
    ("number", "token"), [("99", "1:2"), ("0", "1:2"), ("no number", "1:2"), ("2", "8:9"), ("", "")]
)
def test_a_descriptor_that_is_something_else_is_left_alone(number: str, token: str) -> None:
    telling = WATCH + "with progress.shown(lambda: 1, lambda: None, lambda: 'x', False, end=True): pass"
    done = run(sys.executable, "-c", telling, ROOT, QB_REPORT_FD=number, QB_REPORT_TOKEN=token)
    assert (done.returncode, done.stderr) == (0, b"")


def test_nothing_is_renewed_while_it_is_held() -> None:
    """And nothing is erased if no line is shown."""
    body = """
with watched({}):
    time.sleep(0.05)
    with progressline.held():
        os.write(2, b"<")
        time.sleep(0.05)
        os.write(2, b">")
    time.sleep(0.05)
"""
    shown = watch(body.format(True)).stderr
    before, _, behind = shown.partition(b"\r\033[K<>")
    assert before.startswith(b"\r\033[Kvm1:root") and behind.startswith(b"\r\033[Kvm1:root")
    assert watch(body.format(False)).stderr == b"<>"
