"""How programs of lvm2 are run, tested with small scripts in their place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import ROOT

from qbtools.errors import Failed
from qbtools.volumes.lvm import tools


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path for the body of the program `lvs`, which is bash text."""
    path = tmp_path / "lvs"
    path.write_text("#!/bin/bash\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return path


def body(program: Path, text: str) -> None:
    program.write_text(f"#!/bin/bash\n{text}\n")


def test_what_it_prints_and_how_it_is_run(program: Path) -> None:
    body(program, 'echo "$LC_ALL" "$@"; read -r line || echo "no input"; echo noise >&2')
    assert tools.lvm("lvs", "a b", "-o", "x") == "C a b -o x\nno input\n"


def test_its_environment(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "start").write_text("echo noise\n")
    for name, text in {
        "BASH_ENV": f"{tmp_path}/start",
        "LVM_SYSTEM_DIR": "/a",
        "DM_X": "/b",
        "AWS_PROFILE": "x",
    }.items():
        monkeypatch.setenv(name, text)
    body(program, 'echo "$LVM_SYSTEM_DIR $DM_X$BASH_ENV$AWS_PROFILE"')
    assert tools.lvm("lvs") == "/a /b\n"


def test_no_descriptor_beyond_2_is_inherited(program: Path) -> None:
    body(program, "for fd in /proc/$$/fd/*; do [ ! -e $fd ] || echo ${fd##*/}; done")
    secret, other = os.pipe()
    os.set_inheritable(secret, True)
    try:
        fds = set(tools.lvm("lvs").split())
    finally:
        os.close(secret)
        os.close(other)
    assert {"0", "1", "2"} <= fds <= {"0", "1", "2", "255"}, "255 is the script itself"


def test_the_reason_of_a_failure(program: Path) -> None:
    body(
        program, 'echo "  WARNING: much ado" >&2; echo "  Volume group \\"x\\" not found" >&2; echo "  No." >&2; exit 5'
    )
    with pytest.raises(Failed, match='^lvs: Volume group "x" not found; No$'):
        tools.lvm("lvs", "x")


def test_a_failure_without_a_message(program: Path) -> None:
    body(program, "exit 3")
    with pytest.raises(Failed, match="^lvs: ended with status 3$"):
        tools.lvm("lvs")
    body(program, "kill -KILL $$")
    with pytest.raises(Failed, match="^lvs: was killed by signal 9$"):
        tools.lvm("lvs")


def test_much_on_stderr_blocks_nothing(program: Path) -> None:
    body(program, "yes noise | head -c 300000 >&2; echo done")
    assert tools.lvm("lvs") == "done\n"


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(Failed, match="^cannot run qb-no-such-program: No such file or directory$"):
        tools.lvm("qb-no-such-program")


def test_a_report(program: Path) -> None:
    body(program, """echo '{"report": [{"lv": [{"lv_name":"a", "lv_size":"512"}, {"lv_name":"b", "lv_size":""}]}]}'""")
    assert tools.report("lvs", "lv_name,lv_size", "vg") == [
        {"lv_name": "a", "lv_size": "512"},
        {"lv_name": "b", "lv_size": ""},
    ]
    body(program, """echo '{"report": [{"lv": []}]}'""")
    assert tools.report("lvs", "lv_name") == []


@pytest.mark.parametrize("text", ["", "nothing", "{}", '{"report": []}', '{"report": [{"lv": [1]}]}'])
def test_a_report_that_is_none(program: Path, text: str) -> None:
    body(program, f"echo '{text}'")
    with pytest.raises(Failed, match="printed a report that cannot be parsed"):
        tools.report("lvs", "lv_name")


def test_output_while_it_runs_and_a_reader_that_fails(program: Path) -> None:
    body(program, "trap '' INT; yes")
    with pytest.raises(KeyError), tools.output("lvs") as stream:
        assert stream.read(4) == b"y\ny\n"
        raise KeyError
    with pytest.raises(Failed, match="^lvs: "), tools.output("lvs") as stream:
        assert stream.read(2) == b"y\n"  # and it is left at that


def test_output_of_a_program_that_fails_at_its_end(program: Path) -> None:
    body(program, "echo one; echo broken >&2; exit 1")
    with pytest.raises(Failed, match="^lvs: broken$"), tools.output("lvs") as stream:
        assert stream.read() == b"one\n"


INTERRUPTED = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from qbtools.commands.ending import Terminated, _terminate
from qbtools.volumes.lvm import tools
signal.signal(signal.SIGTERM, _terminate)
try:
    tools.lvm("lvs")
except Terminated:
    print("unwound", os.path.exists(sys.argv[1]), flush=True)
"""


def test_a_signal_is_handled_after_the_program_has_ended(program: Path, tmp_path: Path) -> None:
    """Like lvm in its critical section, the program ignores signals; we wait for it and then stop."""
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    body(program, f"trap '' INT TERM; touch {begun}; sleep 0.5; touch {ended}")
    argv = [sys.executable, "-c", INTERRUPTED, str(ended)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    while not begun.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.communicate()[0] == "unwound True\n"


EARLY = """
import subprocess, time
start = subprocess.Popen
def interrupted(*words, **options):
    process = start(*words, **options)
    while not os.path.exists(sys.argv[2]):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    return process
subprocess.Popen = interrupted
"""


def test_a_program_is_waited_for_that_started_when_a_signal_came(program: Path, tmp_path: Path) -> None:
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    body(program, f"trap '' INT TERM; touch {begun}; sleep 0.5; touch {ended}")
    text = INTERRUPTED.replace("try:\n", EARLY + "try:\n", 1)
    argv = [sys.executable, "-c", text, str(ended), str(begun)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("unwound True\n", "")
