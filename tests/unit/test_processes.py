"""Child commands: the end of each stage is noticed, and a sink only sees EOF if everything succeeded."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import ROOT

from qbtools import processes
from qbtools.descriptors import write_fd
from qbtools.endings import Ending
from qbtools.errors import Failed
from qbtools.processes import capture, start_sink, start_source


def wait_until(condition: Callable[[], bool]) -> None:
    """Waits for another process; the time does not matter to the test."""
    until = time.monotonic() + 60
    while not condition():
        if time.monotonic() > until:
            pytest.fail("waited in vain")
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether the process runs (one that ended but was not waited for does not)."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def read_all(fd: int) -> bytes:
    data = b""
    while more := os.read(fd, 1 << 16):
        data += more
    return data


def source(text: str, **environment: str) -> tuple[bytes, Ending]:
    command = start_source(text, environment)
    data = read_all(command.pipe)
    return data, command.finish()


def sink(text: str, data: bytes, **environment: str) -> Ending:
    command = start_sink(text, environment)
    with contextlib.suppress(BrokenPipeError):
        write_fd(command.pipe, data)
    return command.finish()


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> object:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) <= before


# --- what a CMD is given ---


def test_a_source_is_read_and_has_no_input() -> None:
    assert source("cat; printf %s data") == (b"data", Ending(0, (0,)))


def test_a_sink_is_written_and_meets_eof_at_the_end(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    assert sink('cat >"$TARGET"', data, TARGET=str(tmp_path / "out")) == Ending(0, (0,))
    assert (tmp_path / "out").read_bytes() == data


def test_the_environment_is_added_to_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QB_OURS", "ours")
    data, _ = source('printf "%s," "$QB_NAME" "$QB_OURS"', QB_NAME="a b'c\"$(touch x)\n")
    assert data == b"a b'c\"$(touch x)\n,ours,"
    assert "QB_NAME" not in os.environ


def test_a_sink_sees_the_environment_and_writes_to_our_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    assert sink('cat; printf "%s" "$QB_NAME"', b"data ", QB_NAME="name") == Ending(0, (0,))
    assert capfd.readouterr().out == "data name"


def test_a_cmd_gets_no_descriptor_that_is_not_its_own() -> None:
    secret, end = os.pipe()
    os.set_inheritable(secret, True)
    try:
        names = source('for fd in /proc/self/fd/*; do readlink "$fd"; done')[0].decode().split()
        inode = f"pipe:[{os.fstat(secret).st_ino}]"
    finally:
        os.close(secret)
        os.close(end)
    assert names and inode not in names


def test_a_cmd_of_a_sink_does_not_hold_its_own_input_open(tmp_path: Path) -> None:
    # Else it would never meet EOF.
    listing = tmp_path / "fds"
    sink(f'cat >/dev/null; for fd in /proc/self/fd/*; do readlink "$fd"; done >{listing}', b"")
    pipes = [line for line in listing.read_text().split() if line.startswith("pipe:")]
    assert len(pipes) == len(set(pipes))


# --- which stage failed ---

CASES = [
    ("true", 0, (0,), "ended with status 0"),
    ("exit 3", 3, None, "ended with status 3"),
    ("false", 1, (1,), "ended with status 1"),
    ("true | true | true", 0, (0, 0, 0), "ended with status 0"),
    ("(exit 4) | true | true", 4, (4, 0, 0), "stage 1 of 3 ended with status 4"),
    ("true | (exit 4) | true", 4, (0, 4, 0), "stage 2 of 3 ended with status 4"),
    ("true | true | (exit 4)", 4, (0, 0, 4), "stage 3 of 3 ended with status 4"),
    ("(exit 4) | (exit 5) | (exit 6)", 6, (4, 5, 6), "stage 1 of 3 ended with status 4"),
    ("(exit 141) | (exit 5) | (exit 6)", 6, (141, 5, 6), "stage 2 of 3 ended with status 5"),
    ("(exit 141) | (exit 0)", 141, (141, 0), "was killed by SIGPIPE"),
    ("(kill -9 $BASHPID) | true", 137, (137, 0), "stage 1 of 2 was killed by SIGKILL"),
    ("kill -9 $$", 137, None, "was killed by SIGKILL"),
    ("kill -TERM $$; true", 143, None, "was killed by SIGTERM"),
    ("exit 200", 200, None, "ended with status 200"),
    ("false; true", 0, (0,), "ended with status 0"),
    ("set -e; false; true", 1, (1,), "ended with status 1"),
    ("(exit 3) | true || exit 9", 9, None, "ended with status 9"),
    ("if", 2, None, "ended with status 2"),
    ("no-such-program-anywhere", 127, (127,), "ended with status 127"),
    ("exec false", 1, (), "ended with status 1"),
    ("trap '' EXIT; false | true", 1, (), "ended with status 1"),
]


@pytest.mark.parametrize(("text", "status", "stages", "words"), CASES)
@pytest.mark.parametrize("start", ["source", "sink"])
def test_the_leftmost_cause_is_named(
    start: str, text: str, status: int, stages: tuple[int, ...] | None, words: str
) -> None:
    ending = source(text)[1] if start == "source" else sink(text, b"")
    assert ending.status == status
    assert ending.failed == (status != 0)
    if stages is not None:
        assert ending.stages == stages
    assert ending.describe() == words


@pytest.mark.parametrize(
    ("ending", "blame"),
    [
        (Ending(0), (-1, 0)),
        (Ending(7), (-1, 7)),
        (Ending(7, (0, 7)), (1, 7)),
        (Ending(7, (3, 7, 0)), (0, 3)),
        (Ending(141, (141, 141)), (-1, 141)),
        (Ending(9, (3, 0)), (-1, 9)),  # the last pipeline is not what the CMD ended with
    ],
)
def test_blame(ending: Ending, blame: tuple[int, int]) -> None:
    assert ending.blame() == blame


# --- a sink that does not want the rest ---


def test_a_sink_that_stops_reading_gives_epipe_and_its_own_status() -> None:
    command = start_sink("head -c 1 >/dev/null", {})
    with pytest.raises(BrokenPipeError):
        while True:
            write_fd(command.pipe, bytes(1 << 16))
    assert command.finish() == Ending(0, (0,))


@pytest.mark.parametrize("text", ["exit 3", "false | cat; exit 3"])
def test_a_status_is_known_even_if_somebody_else_has_waited_for_the_command(text: str) -> None:
    command = start_source(text, {})
    os.waitpid(command._process.pid, 0)
    ending = command.finish()
    assert ending.failed and ending.status == 3


def test_a_child_that_lives_on_does_not_hold_the_end_up() -> None:
    # A daemon that a CMD starts keeps descriptors of ours.
    command = start_source("sleep 60 >/dev/null 2>&1 & echo $!", {})
    pid = int(os.read(command.pipe, 100))
    assert command.finish() == Ending(0, (0,))
    os.kill(pid, signal.SIGKILL)


# --- the end by force ---


def test_abort_ends_all_of_a_source() -> None:
    command = start_source("(sleep 61; true) | (sleep 62; true) & echo $!; sleep 63", {})
    pid = int(os.read(command.pipe, 100))
    command.abort()
    wait_until(lambda: not alive(pid))
    assert os.read(command.pipe, 1) == b""  # no process has its other end any more
    os.close(command.pipe)


CLEANS_UP = r"""trap 'sleep 0.3; echo cleaned >>"$DONE"; exit 1' TERM; echo >"$READY"; while :; do sleep 0.05; done"""


@pytest.mark.parametrize("kind", ["source", "sink"])
def test_abort_gives_every_stage_time_to_clean_up(kind: str, tmp_path: Path) -> None:
    environment = {"READY": str(tmp_path / "ready"), "DONE": str(tmp_path / "done"), "STAGE": CLEANS_UP}
    text = 'bash -c "$STAGE" | bash -c "$STAGE" | cat >/dev/null'
    command = (start_source if kind == "source" else start_sink)(text, environment)
    wait_until((tmp_path / "ready").exists)
    time.sleep(0.1)  # the second one, too
    command.abort()
    assert (tmp_path / "done").read_text() == "cleaned\ncleaned\n"
    if kind == "source":
        os.close(command.pipe)


@pytest.mark.parametrize("kind", ["source", "sink"])
def test_abort_kills_a_command_that_does_not_end(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GRACE", 0.3)
    ready = tmp_path / "ready"
    text = (
        """trap '' TERM; bash -c 'echo $$ >"$0.new"; mv "$0.new" "$0"; while :; do sleep 0.05; done' "$READY" | cat"""
    )
    command = (start_source if kind == "source" else start_sink)(text, {"READY": str(ready)})
    wait_until(ready.exists)
    pid = int(ready.read_text())
    command.abort()
    wait_until(lambda: not alive(pid))
    if kind == "source":
        os.close(command.pipe)


def test_an_aborted_sink_never_meets_eof(tmp_path: Path) -> None:
    target = tmp_path / "done"
    command = start_sink(f"cat >/dev/null; touch {target}", {})
    write_fd(command.pipe, b"half of it")
    command.abort()
    assert not target.exists()


PARENT = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from qbtools import processes
processes.GRACE = 0.3
command = processes.start_sink(sys.argv[1], {})
os.write(command.pipe, b"half of it")
print(os.getpid(), command._process.pid, flush=True)
"""


@pytest.mark.parametrize(
    "ending", ["signal.pause()", "os._exit(0)", "os.close(command.pipe); os._exit(1)", "os.abort()", "raise KeyError"]
)
@pytest.mark.parametrize("cmd", ["cat", "trap '' TERM; cat", "cat | cat | cat"])
def test_a_sink_never_meets_eof_when_its_parent_dies(ending: str, cmd: str, tmp_path: Path) -> None:
    # Whatever becomes of us, SIGKILL included: EOF would look like the end of the file.
    target = tmp_path / "target"
    text = f"{cmd} >{target}.new; mv {target}.new {target}"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT + ending, text, str(ROOT)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with parent:
        assert parent.stdout is not None
        pid, guard = map(int, parent.stdout.readline().split())
        if ending == "signal.pause()":
            wait_until(lambda: target.with_suffix(".new").exists())
            os.kill(pid, signal.SIGKILL)
        parent.wait()
        wait_until(lambda: not alive(guard))
    assert not target.exists()


@pytest.mark.parametrize("kind", ["sink", "capture"])
def test_a_signal_while_its_end_is_awaited(kind: str, tmp_path: Path) -> None:
    """CMD has read all of its input, but we have not finished: when we end, none of its processes may continue."""
    unseal = """
from types import SimpleNamespace as Thing
from qbtools.commands.archive import events, routes, tocommand
archive = Thing(header=Thing(backup_id="", method="gzip", version=4))
cmds = tocommand.Cmds(sys.argv[1], None, False, False, print)
feeder = tocommand._Feeder(archive, cmds, routes.Named(()), Board(), events.Events(None))
"""
    act = {
        "sink": f"{unseal}\ntry:\n feeder.feed('x', 0, memoryview(b'x'))\n feeder.end('x')\nfinally:\n feeder.abort()",
        "capture": "processes.capture(sys.argv[1], 100, print)",
    }[kind]
    program = f"""
import signal, sys
sys.path.insert(0, sys.argv[2])
from qbtools import processes
from qbtools.progress import Board
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
{act}
"""
    text = f"cat >/dev/null; exec >&-; trap 'sleep 0.3; touch {tmp_path}/cleaned; exit 1' TERM; touch {tmp_path}/ready"
    with subprocess.Popen(
        [sys.executable, "-c", program, f"{text}; while :; do sleep 0.05; done", str(ROOT)]
    ) as parent:
        wait_until((tmp_path / "ready").exists)
        time.sleep(0.1)
        parent.terminate()
        assert parent.wait() == 3
    assert (tmp_path / "cleaned").exists()


def test_a_guard_that_is_killed_is_a_failure(tmp_path: Path) -> None:
    command = start_sink("cat >/dev/null", {})
    os.kill(command._process.pid, signal.SIGKILL)
    command._process.wait()
    ending = command.finish()
    assert ending.failed and ending.describe() == "was killed by SIGKILL"


# --- bash is not there; what a CMD prints ---


def test_without_bash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for start in (start_source, start_sink):
        with pytest.raises(Failed, match="^cannot start bash: No such file or directory$"):
            start("true", {})


def test_capture_takes_no_more_than_its_limit() -> None:
    endings: list[Ending] = []
    assert capture("printf 12345", 5, endings.append) == b"12345"
    assert capture("printf 123; printf 45", 100, endings.append) == b"12345"
    assert capture("yes", 4, endings.append) == b"y\ny\n"
    assert [ending.status for ending in endings] == [0, 0]


@pytest.mark.parametrize("text", ["printf half; kill -PIPE $$", "(printf half; kill -PIPE $BASHPID)"])
def test_capture_does_not_take_half_of_an_output_for_all(text: str) -> None:
    endings: list[Ending] = []
    assert capture(text, 100, endings.append) == b"half"
    assert [ending.describe() for ending in endings] == ["was killed by SIGPIPE"]


def test_capture_takes_what_the_last_stage_printed() -> None:
    endings: list[Ending] = []
    assert capture("yes | head -n 2", 100, endings.append) == b"y\ny\n"
    assert endings == []


def test_the_check_of_capture_may_refuse() -> None:
    def refuse(ending: Ending) -> None:
        raise Failed(ending.describe())

    with pytest.raises(Failed, match="^ended with status 3$"):
        capture("printf secret; exit 3", 100, refuse)
