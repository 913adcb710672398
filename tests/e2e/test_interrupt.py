"""SIGINT from a real terminal, SIGTERM and SIGHUP: the status of a signal, nothing incomplete, no process left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from running import Running, kill, wait_until
from support import bash, copy_of
from terminal import Terminal

SIZE = 12 << 20
MEMBER = "vm1/root.img"
CREATE = "qb-backup create -q --logn 10 --chunk-size 64K -o $OUT vm1:root=root.img"
RESTORE = "qb-backup restore --to $OUT backup.qb"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume, archives of it, a passphrase."""
    place = tmp_path_factory.mktemp("interrupted")
    (place / "root.img").write_bytes(os.urandom(SIZE))
    (place / "passphrase").write_text("interrupted\n")
    (place / "passphrase").chmod(0o600)
    made = bash(
        f"cd {place} && qb-volread root.img | qb-tarwrite {MEMBER} | gzip -1c |"
        f" qb-seal --logn 10 --chunk-size 64K --passphrase-file passphrase {MEMBER} >by-hand.qb &&"
        f" OUT=backup.qb && {CREATE} --passphrase-file passphrase"
    )
    assert (made.returncode, made.stderr) == (0, b"")
    return place


@pytest.fixture
def running(folder: Path, tmp_path: Path) -> Running:
    made = Running(tmp_path, folder, OUT=str(tmp_path / "out"))
    made.hold_in(MEMBER, 3000000)
    return made


def terminal(running: Running, folder: Path, tmp_path: Path, text: str) -> Terminal:
    """Types text at a shell on a terminal; the shell, which SIGINT reaches too, puts its status into a file."""
    text = f"trap : INT; cd {folder}; set -o pipefail; {text}; echo $? >{tmp_path}/status.new;"
    return Terminal("bash", "-c", f"{text} mv {tmp_path}/status.new {tmp_path}/status", **running.environment)


def status(tmp_path: Path) -> int:
    wait_until((tmp_path / "status").exists, "the end of the command")
    return int((tmp_path / "status").read_text())


def files(tmp_path: Path) -> list[str]:
    """What the run has left, besides what the test itself has put there."""
    ours = {"programs", "go", "reached", "status"}
    return sorted(
        str(path.relative_to(tmp_path))
        for path in tmp_path.rglob("*")
        if path.relative_to(tmp_path).parts[0] not in ours and not path.is_dir()
    )


@pytest.mark.parametrize("command", [CREATE, RESTORE, "qb-backup list backup.qb", "qb-backup verify backup.qb"])
def test_qb_backup_at_the_prompt(command: str, running: Running, folder: Path, tmp_path: Path) -> None:
    with running, terminal(running, folder, tmp_path, command) as tty:
        tty.expect(b"passphrase: ")
        assert not tty.echoes()
        if command == CREATE:  # qb-store may only be starting; until Python has, it would print a traceback
            wait_until((tmp_path / "out.partial").exists, "qb-store has begun")
        tty.type(b"\x03")
        assert status(tmp_path) == 130
        assert tty.echoes()
        assert tty.finish().stderr.decode() == ""
        running.gone()
    assert files(tmp_path) == []


@pytest.mark.parametrize("command", [CREATE, RESTORE, "qb-backup verify backup.qb"])
def test_qb_backup_in_the_middle(command: str, running: Running, folder: Path, tmp_path: Path) -> None:
    running.environment["QB_PASSPHRASE_FILE"] = str(folder / "passphrase")
    with running, terminal(running, folder, tmp_path, command) as tty:
        running.hold()
        tty.type(b"\x03")
        assert status(tmp_path) == 130
        assert tty.finish().stderr.decode() == ""
        running.gone()
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "command",
    [
        f"qb-volread root.img | qb-tarwrite {MEMBER} | valve 3000000 | qb-seal --opaque --logn 10 {MEMBER} >/dev/null",
        f"qb-unseal {MEMBER} <by-hand.qb | gzip -dc | valve 3000000 | qb-tarextract | qb-volwrite $OUT",
        'qb-unseal --to-command "gzip -dc | valve 3000000 | qb-tarextract | qb-volwrite $OUT" <by-hand.qb',
        "qb-seal --opaque --from-command 'qb-volread $QB_SOURCE | valve 3000000' list >/dev/null",
    ],
)
def test_a_pipe_by_hand(command: str, running: Running, folder: Path, tmp_path: Path) -> None:
    (folder / "list").write_text(f"{MEMBER}\troot.img\nend\n")
    running.environment["QB_PASSPHRASE_FILE"] = str(folder / "passphrase")
    with running, terminal(running, folder, tmp_path, command) as tty:
        running.hold()
        tty.type(b"\x03")
        assert status(tmp_path) == 130
        assert tty.finish().stderr.decode() == ""
        running.gone()
    assert files(tmp_path) == []


def test_what_was_typed_once_need_not_be_typed_again_after_an_interrupt(
    running: Running, folder: Path, tmp_path: Path
) -> None:
    """At the second of the two prompts of create."""
    with running, terminal(running, folder, tmp_path, CREATE) as tty:
        tty.expect(b"passphrase: ")
        tty.type(b"secret\n")
        tty.expect(b"passphrase again: ")
        tty.type(b"\x03")
        assert status(tmp_path) == 130
        assert tty.echoes()
        assert b"secret" not in tty.said
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("command", "number"),
    [
        *((CREATE, number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)),
        (RESTORE, signal.SIGHUP),
        ("qb-backup verify backup.qb", signal.SIGINT),
    ],
)
def test_a_signal_to_qb_backup_alone(command: str, number: int, running: Running, folder: Path, tmp_path: Path) -> None:
    running.environment["QB_PASSPHRASE_FILE"] = str(folder / "passphrase")
    with running:
        backup = running.start(f"exec {command}")
        running.hold()
        backup.send_signal(number)
        assert running.end() == (-number, "")
        running.gone()
    assert files(tmp_path) == []


SOON = 5.0
"""Seconds within which the stages are at an end, whatever they do. A busy machine is given some more."""


def ended_soon(running: Running, number: int) -> str:
    """The run must end by this signal; returns its stderr."""
    began = time.monotonic()
    status, stderr = running.end()
    running.gone()
    assert status == -number
    assert time.monotonic() - began < SOON + 5
    return stderr


STOPPED = [
    *((CREATE, stage) for stage in ("qb-seal", "qb-store", "qb-volread", "gzip", "qb-backup")),
    *((RESTORE, stage) for stage in ("qb-unseal", "qb-volwrite", "gzip", "qb-backup")),
]


@pytest.mark.parametrize(("command", "stage"), STOPPED)
def test_a_stage_that_is_stopped(command: str, stage: str, running: Running, folder: Path, tmp_path: Path) -> None:
    running.environment["QB_PASSPHRASE_FILE"] = str(folder / "passphrase")
    number = signal.SIGTERM if command == CREATE else signal.SIGHUP
    with running:
        backup = running.start(f"exec {command}")
        running.hold()
        kill(running.one(stage), signal.SIGSTOP)
        backup.send_signal(number)
        assert ended_soon(running, number) == ""
    assert files(tmp_path) == []


DEAF = """#!/bin/bash
# Never ends by itself, nor by a signal that it can do something about.
trap '' TERM INT HUP PIPE
: >"$LC_QB_TEST_VALVE/reached"
while :; do sleep 0.05; done
"""


@pytest.mark.parametrize(
    ("command", "number"),
    [(CREATE, signal.SIGTERM), (RESTORE, signal.SIGINT), ("qb-backup verify backup.qb", signal.SIGTERM)],
)
def test_a_compressor_that_is_deaf(command: str, number: int, running: Running, folder: Path, tmp_path: Path) -> None:
    running.program("igzip", DEAF)
    running.environment["QB_PASSPHRASE_FILE"] = str(folder / "passphrase")
    with running:
        backup = running.start(f"exec {command}")
        running.hold()
        backup.send_signal(number)
        assert ended_soon(running, number) == ""
    assert files(tmp_path) == []


@pytest.mark.parametrize("program", ["qb-unseal", "qb-tarextract"])
def test_a_stage_of_ours_that_is_deaf(program: str, running: Running, folder: Path, tmp_path: Path) -> None:
    place = copy_of(tmp_path / "programs", "bin", "qbtools")
    (place / "bin" / program).write_text(DEAF)
    running.environment["QB_PASSPHRASE_FILE"] = str(folder / "passphrase")
    with running:
        backup = running.start(f"exec {place}/bin/qb-backup verify backup.qb")
        running.hold()
        backup.send_signal(signal.SIGTERM)
        assert ended_soon(running, signal.SIGTERM) == ""


def test_a_passphrase_command_that_hangs(running: Running) -> None:
    running.environment["QB_PASSPHRASE_COMMAND"] = ': >"$LC_QB_TEST_VALVE/reached"; sleep 1000'
    with running:
        backup = running.start(f"exec {CREATE}")
        running.hold()
        backup.send_signal(signal.SIGTERM)
        assert ended_soon(running, signal.SIGTERM) == ""


def test_a_service_manager_that_signals_all_processes(running: Running, folder: Path, tmp_path: Path) -> None:
    """As systemd does it: SIGTERM to each process, then SIGCONT."""
    running.environment["QB_PASSPHRASE_FILE"] = str(folder / "passphrase")
    with running:
        running.start(f"exec {CREATE}")
        running.hold()
        everybody = running.processes()
        for number in (signal.SIGTERM, signal.SIGCONT):
            for pid in everybody:
                kill(pid, number)
        ended_soon(running, signal.SIGTERM)
    assert files(tmp_path) == []


@pytest.mark.parametrize("command", [CREATE, RESTORE])
def test_at_the_terminal_with_a_stage_that_is_stopped(
    command: str, running: Running, folder: Path, tmp_path: Path
) -> None:
    running.environment["QB_PASSPHRASE_FILE"] = str(folder / "passphrase")
    with running, terminal(running, folder, tmp_path, command) as tty:
        running.hold()
        kill(running.one("gzip"), signal.SIGSTOP)
        tty.type(b"\x03")
        assert status(tmp_path) == 130
        assert tty.finish().stderr.decode() == ""
        running.gone()
    assert files(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "command",
    [
        'qb-unseal --to-command "gzip -dc | valve 3000000 | qb-tarextract | qb-volwrite $OUT" <by-hand.qb',
        "qb-seal --opaque --logn 10 --from-command 'qb-volread $QB_SOURCE | valve 3000000' list >/dev/null",
    ],
)
def test_a_signal_to_the_program_that_runs_a_command(
    command: str, number: int, running: Running, folder: Path, tmp_path: Path
) -> None:
    (folder / "list").write_text(f"{MEMBER}\troot.img\nend\n")
    running.environment["QB_PASSPHRASE_FILE"] = str(folder / "passphrase")
    with running:
        process = running.start(f"exec {command}")
        running.hold()
        process.send_signal(number)
        assert running.end() == (-number, "")
        running.gone()
    assert files(tmp_path) == []
