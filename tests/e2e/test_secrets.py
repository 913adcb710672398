"""During a backup the passphrase is in no command line and no environment, and plaintext in no temporary file."""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from running import OF_FILE, Running, marked, read, wait_until
from support import bash, environment
from terminal import Terminal
from watching import Watch, limits, opened, regular

CREATE = "qb-backup create -q --logn 10 --chunk-size 512K {secret} vm1:root=root.img"
COMMANDS = {
    "create": CREATE + " | valve 1000000 >$OUT",
    "restore": "qb-backup restore {secret} --to $OUT backup.qb",
    "verify": "qb-backup verify {secret} backup.qb",
}

# Replaces the compressor and only stores the bytes, so that plaintext stays visible everywhere.
STORE = """import gzip, shutil, sys
with gzip.GzipFile(fileobj=sys.stdout.buffer, mode="wb", compresslevel=0) as out:
    shutil.copyfileobj(sys.stdin.buffer, out)
"""
# Also replaces the decompressor, which stops in the middle of the volume.
STOPPING = f"""{OF_FILE}
[ "$*" = -dc ] || exec {sys.executable} -c '{STORE}'
if [ "$QB_NAME" = vm1/root.img ]; then /bin/gzip -dc | valve 1000000; exit; fi
exec /bin/gzip -dc
"""

SOURCES = {
    "file": ("--passphrase-file secret", {}),
    "descriptor": ("--passphrase-fd 9 9< <(cat secret)", {}),
    "command": ("--passphrase-command 'cat secret'", {}),
    "variable": ("", {"QB_PASSPHRASE_FILE": "secret"}),
}


@pytest.fixture(scope="module")
def secret() -> bytes:
    return f"secret-{uuid.uuid4()}".encode()


@pytest.fixture(scope="module")
def marker() -> bytes:
    """The text that fills the volume."""
    return f"plaintext-{uuid.uuid4()}\n".encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, secret: bytes, marker: bytes) -> Path:
    place = tmp_path_factory.mktemp("secrets")
    (place / "root.img").write_bytes(marker * (12_000_000 // len(marker)))
    (place / "secret").write_bytes(secret)
    (place / "secret").chmod(0o600)
    (place / "programs").mkdir()
    (place / "programs/igzip").write_text(f"#!{sys.executable}\n{STORE}")
    (place / "programs/igzip").chmod(0o755)
    path = f"{place}/programs:{environment()['PATH']}"
    made = bash(f"cd {place}; {CREATE.format(secret='--passphrase-file secret')} >backup.qb", PATH=path)
    assert (made.returncode, made.stderr) == (0, b"")
    return place


@pytest.fixture
def running(folder: Path, tmp_path: Path) -> Iterator[Running]:
    """A run that stops in the middle of the volume; TMPDIR is an empty directory."""
    (tmp_path / "tmp").mkdir()
    made = Running(tmp_path, folder, OUT=str(tmp_path / "out"), TMPDIR=str(tmp_path / "tmp"))
    made.program("igzip", STOPPING)
    with made:
        yield made


def nowhere(secret: bytes) -> Callable[[], None]:
    """Fails if any process of this machine shows the secret to others."""

    def look() -> None:
        for name in os.listdir("/proc"):
            if name.isdigit():
                for file in ("cmdline", "environ", "comm"):
                    assert secret not in read(f"/proc/{name}/{file}"), (name, file, read(f"/proc/{name}/cmdline"))

    return look


def test_the_watch_sees_what_it_looks_for(running: Running, secret: bytes) -> None:
    for text in (f"exec -a {secret.decode()} sleep 60", f"SHOWN={secret.decode()} exec sleep 60"):
        process = running.start(text)
        with pytest.raises(AssertionError, match=r"cmdline|environ"):
            while True:
                nowhere(secret)()
        process.kill()
        process.communicate()


# Each source with create, whose stages all take it, and each command with a source that it passes on.
SHOWN = [*(("create", source) for source in SOURCES), ("restore", "descriptor"), ("restore", "command")]
SHOWN += [("verify", "file")]


@pytest.mark.parametrize(("command", "source"), SHOWN)
def test_the_passphrase_is_not_shown(command: str, source: str, running: Running, secret: bytes) -> None:
    options, variables = SOURCES[source]
    running.environment.update(variables)
    look = nowhere(secret)
    with Watch(look):
        running.start(COMMANDS[command].format(secret=options))
        running.hold()
        look()
        assert running.processes("qb-seal" if command == "create" else "qb-unseal")
        running.release()
        assert running.end() == (0, "")


@pytest.mark.parametrize("command", ["create", "restore"])
def test_the_passphrase_that_is_typed_is_not_shown(command: str, running: Running, folder: Path, secret: bytes) -> None:
    text = f"cd {folder} && {COMMANDS[command].format(secret='')}"
    look = nowhere(secret)
    with Watch(look), Terminal("bash", "-c", text, **running.environment) as tty:
        for prompt in (b"passphrase: ", b"passphrase again: ")[: 2 if command == "create" else 1]:
            tty.expect(prompt)
            tty.type(secret + b"\n")
        running.hold()
        look()
        running.release()
        assert tty.finish().returncode == 0
    assert secret not in tty.said


# --- what ps shows ---


@pytest.mark.parametrize("command", COMMANDS)
def test_ps_shows_no_scripts(command: str, running: Running) -> None:
    running.start(COMMANDS[command].format(secret="--passphrase-file secret"))
    running.hold()
    ours = {pid: read(f"/proc/{pid}/cmdline") for pid in running.processes()}
    shells = [line.split(b"\0") for line in ours.values() if line.startswith(b"bash\0")]
    assert [words for words in shells if b"pipefail" in words]  # one that runs the stages of a file is among them
    for words in shells:
        assert all(len(word) < 80 and b"\n" not in word for word in words if b"valve" not in word), words
    assert not [line for line in ours.values() if b"| qb-" in line and b"valve" not in line]
    running.release()
    assert running.end() == (0, "")


# --- core dumps ---

HOLDING = {
    "qb-seal": "valve 1000000 <root.img | qb-seal --opaque --logn 10 --passphrase-file secret a >$OUT",
    "qb-unseal": "valve 1000000 <backup.qb | qb-unseal --passphrase-file secret --verify",
    "qb-header": "valve 100 <backup.qb | qb-header read --passphrase-file secret -",
}
"""Pipes that stop when the program has the passphrase."""


@pytest.mark.parametrize("program", HOLDING)
def test_no_core_dump_holds_the_passphrase(program: str, running: Running) -> None:
    running.start(f"ulimit -c unlimited; {HOLDING[program]}")
    running.hold()
    pid = running.one(program)
    wait_until(lambda: limits(pid) == ["0", "unlimited"], "the limit")
    os.kill(pid, signal.SIGABRT)
    running.release()
    _status, errors = running.end()
    assert "Aborted" in errors and "core dumped" not in errors


# --- plaintext ---


def in_no_file(marker: bytes, running: Running, temporary: Path, *allowed: Path) -> Callable[[], None]:
    """Fails where a file below TMPDIR, or one that a process of the run has open, holds the marker.

    allowed: files, and directories with all in them, where it must be; a file that was removed still has its path.
    """

    def look() -> None:
        files = [path for path in temporary.rglob("*") if path.is_file()]
        for pid in marked(running.mark):
            files += opened(pid)
        for file in files:
            try:
                place = Path(os.readlink(file)) if file.is_symlink() else file
                if not any(place == path or path in place.parents for path in allowed):
                    assert marker not in regular(file), place
            except OSError:
                continue  # it has gone meanwhile

    return look


def test_the_watch_sees_plaintext(running: Running, folder: Path, tmp_path: Path, marker: bytes) -> None:
    look = in_no_file(marker, running, tmp_path / "tmp", folder / "root.img")
    running.start("valve 1 <root.img >$OUT")
    running.hold()
    look()
    running.release()
    assert running.end() == (0, "")
    running.start("exec 3>$TMPDIR/x 4<root.img; rm $TMPDIR/x; cat <&4 >&3; touch $OUT.ready; sleep 60")
    wait_until((tmp_path / "out.ready").exists, "the file")
    with pytest.raises(AssertionError, match="deleted"):
        look()


@pytest.mark.parametrize("command", COMMANDS)
def test_plaintext_is_in_no_temporary_file(
    command: str, running: Running, folder: Path, tmp_path: Path, marker: bytes
) -> None:
    temporary = tmp_path / "tmp"
    before = temporary.stat().st_mtime_ns
    target = [tmp_path / "out"] if command == "restore" else []
    look = in_no_file(marker, running, temporary, folder / "root.img", *target)
    with Watch(look):
        running.start(COMMANDS[command].format(secret="--passphrase-file secret"))
        running.hold()
        look()
        running.release()
        assert running.end() == (0, "")
    assert temporary.stat().st_mtime_ns == before  # nothing was ever made in it
    if command == "restore":
        assert marker in (tmp_path / "out/vm1/root.img").read_bytes()
