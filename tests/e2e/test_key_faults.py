"""Programs that wrap a passphrase and fail, hang or are killed: they never leave anything like an archive."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import identities
import pytest
from running import Running, kill, wait_until, words
from support import bash, run

MEMBER = "vm1/root.img"
CREATE = "qb-backup create -q --chunk-size 512K -R to -o $OUT vm1:root=root.img"
RESTORE = "qb-backup restore --any-writer -i identity --to $OUT backup.qb"
SHELL = "bash of qb-backup"

MUCH = "head -c 10485760 /dev/zero"  # 10 MiB
HANG = ': >"$LC_QB_TEST_VALVE/reached"; exec sleep 1000'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume, an archive of it, an identity with its recipient."""
    place = tmp_path_factory.mktemp("key-faults")
    (place / "root.img").write_bytes(os.urandom(12 << 20))
    (place / "to").write_text(identities.age(place / "identity") + "\n")
    made = bash(f"cd {place}; {CREATE.replace('-R to', '-R to --key-command cat')}", OUT=str(place / "backup.qb"))
    assert (made.returncode, made.stderr) == (0, b"")
    return place


@pytest.fixture
def running(folder: Path, tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path, folder, OUT=str(tmp_path / "out")) as made:
        yield made


# A replacement of age, and how sealing and opening end with it.
AGES = {
    "killed": ("kill -KILL $$", (1, "age was killed by SIGKILL"), (1, "age was killed by SIGKILL")),
    "killed in the middle": (
        "head -c 20 ; kill -TERM $$",
        (1, "age was killed by SIGTERM"),
        (1, "age was killed by SIGTERM"),
    ),
    "silent": (
        "exit 0",
        (1, "cannot wrap the passphrase: age printed nothing that is an age file"),
        (4, "qb-key.age holds no passphrase"),
    ),
    "failing without a word": (
        "exit 7",
        (1, "cannot wrap the passphrase: age: ended with status 7"),
        (3, "no identity opens qb-key.age: age: ended with status 7"),
    ),
    "10 MiB": (
        MUCH,
        (5, "too many recipients: what age prints for them has more than 65536 bytes"),
        (4, "qb-key.age holds more than 1025 bytes: that is no passphrase"),
    ),
    "10 MiB of words": (
        f"{MUCH} | tr '\\0' x >&2; exit 1",
        (1, "cannot wrap the passphrase: age: "),
        (3, "no identity opens qb-key.age: age: "),
    ),
}


@pytest.mark.parametrize("kind", AGES)
@pytest.mark.parametrize("direction", ["sealing", "opening"])
def test_age_fails(direction: str, kind: str, running: Running, tmp_path: Path) -> None:
    text, *expected = AGES[kind]
    running.program("age", f"#!/bin/bash\n{text}\n")
    running.start(CREATE if direction == "sealing" else RESTORE)
    status, errors = running.end()
    wanted, message = expected[direction == "opening"]
    assert (status, len(errors.splitlines())) in ((wanted, 1), (wanted, 2)), errors[:1000]
    assert errors.splitlines()[0].startswith(f"qb-{'seal' if direction == 'sealing' else 'unseal'}: error: {message}")
    running.gone()
    assert not [name for name in os.listdir(tmp_path) if name.startswith("out")]


@pytest.mark.parametrize("direction", ["sealing", "opening"])
def test_age_is_missing(direction: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "programs").mkdir()
    for name in ("bash", "env", "python3", "readlink", "cat", "gzip"):
        (tmp_path / "programs" / name).symlink_to(bash(f"type -P {name}").stdout.decode().strip())
    path = f"{Path(bash('type -P qb-backup').stdout.decode()).parent}:{tmp_path}/programs"
    text = CREATE if direction == "sealing" else RESTORE
    done = bash(f"cd {folder}; PATH={path}; {text}", OUT=str(tmp_path / "out"))
    assert done.returncode == 1
    first, second = done.stderr.decode().splitlines()
    assert first.endswith("error: the program age is not installed")
    assert second.startswith("hint: install age")
    assert os.listdir(tmp_path) == ["programs"]


COMMANDS = {
    "killed": ("kill -KILL $$", 1, "the key command was killed by SIGKILL"),
    "silent": ("cat >/dev/null", 1, "the key command printed nothing"),
    "failing": ("cat; false", 1, "the key command ended with status 1"),
    "10 MiB": (MUCH, 5, "the key command printed more than 65536 bytes"),
    "without reading": ("echo key", 0, ""),
}


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_key_command_that_seals(kind: str, running: Running, tmp_path: Path) -> None:
    text, status, message = COMMANDS[kind]
    running.start(CREATE.replace("-R to", f"--key-command '{text}'"))
    expected = f"qb-seal: error: {message}\n" if message else ""
    assert running.end() == (status, expected)
    running.gone()
    assert [name for name in os.listdir(tmp_path) if name.startswith("out")] == ([] if status else ["out"])


OPENING = {
    "killed": ("kill -KILL $$", 1, "the key command was killed by SIGKILL"),
    "silent": ("cat >/dev/null", 4, "qb-key.command holds no passphrase"),
    "failing": ("cat; false", 1, "the key command ended with status 1"),
    "10 MiB": (MUCH, 4, "qb-key.command holds no passphrase"),
    "another": ("echo another", 4, "the passphrase in qb-key.command does not open the archive"),
}


@pytest.mark.parametrize("kind", OPENING)
def test_a_key_command_that_opens(kind: str, running: Running, tmp_path: Path) -> None:
    text, status, message = OPENING[kind]
    running.start(RESTORE.replace("-i identity", f"--key-command '{text}'"))
    found, errors = running.end()
    assert (found, errors.splitlines()[0]) == (status, f"qb-unseal: error: {message}")
    assert not (tmp_path / "out").exists()


def test_an_age_that_fails_ends_the_reading_beside_it(running: Running, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    running.program("age", f"#!/bin/bash\nuntil [ -e {begun} ]; do sleep 0.01; done; exit 7\n")
    running.start(
        f"printf 'a\\tb\\nend\\n' | qb-seal -R to --from-command 'head -c 100 /dev/zero; : >{begun}; exec sleep 1000' -"
        " >$OUT"
    )
    assert running.end() == (1, "qb-seal: error: cannot wrap the passphrase: age: ended with status 7\n")
    running.gone()
    assert (tmp_path / "out").read_bytes() == b""


# --- killed while the passphrase is wrapped, or opened ---

HANGING = {
    "sealing": (CREATE, ["qb-seal", "qb-run", SHELL, "sleep"]),
    "sealing by a command": (CREATE.replace("-R to", "--key-command age"), ["qb-seal", "qb-run", SHELL, "sleep"]),
    "sealing for a passphrase too": (
        CREATE.replace("-R to", "-R to --wrap-passphrase --passphrase-command 'echo typed'"),
        ["qb-seal", "qb-run"],
    ),
    "opening": (RESTORE, ["qb-unseal", "qb-run", SHELL, "sleep"]),
    "opening by a command": (RESTORE.replace("-i identity", "--key-command age"), ["qb-unseal", "qb-run", SHELL]),
}
"""With an age that hangs, as sleep."""


@pytest.mark.parametrize(("way", "stage"), [(way, stage) for way, (_, stages) in HANGING.items() for stage in stages])
def test_killed_while_age_hangs(way: str, stage: str, running: Running, tmp_path: Path) -> None:
    running.program("age", f"#!/bin/bash\n{HANG}\n")
    running.start(f"exec {HANGING[way][0]}")
    running.hold()
    kill(running.one("qb-backup" if stage == SHELL else stage), signal.SIGKILL)
    assert running.end()[0] == (-signal.SIGKILL if stage == "qb-run" else 1)
    running.gone()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("way", HANGING)
def test_interrupted_while_age_hangs(way: str, running: Running, tmp_path: Path) -> None:
    running.program("age", f"#!/bin/bash\n{HANG}\n")
    process = running.start(f"exec {HANGING[way][0]}")
    running.hold()
    kill(process.pid, signal.SIGTERM)
    status, errors = running.end()
    assert (status, errors.replace("Terminated\n", "")) == (-signal.SIGTERM, "")  # so says the bash of a command
    running.gone()
    assert not [name for name in os.listdir(tmp_path) if name.startswith("out")]


# --- killed in the middle of the data ---


@pytest.mark.parametrize("stage", ["qb-volread", "gzip", "qb-seal", "qb-store", "qb-run"])
def test_a_stage_that_saves(stage: str, running: Running, tmp_path: Path) -> None:
    running.hold_in(MEMBER, 3000000)
    running.start(f"exec {CREATE}")
    running.hold()
    kill(running.one(stage), signal.SIGKILL)
    if stage in ("qb-volread", "gzip", "qb-store"):
        running.release()
    assert running.end()[0] == (-signal.SIGKILL if stage == "qb-run" else 1)
    running.gone()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["valve", "qb-seal"])
def test_what_came_out_before_a_stage_was_killed_is_not_complete(
    stage: str, running: Running, folder: Path, tmp_path: Path
) -> None:
    running.start("valve 3000000 <root.img | qb-seal -q --opaque --chunk-size 512K -R to a >$OUT; exit 1")
    running.hold()
    wait_until(lambda: (tmp_path / "out").stat().st_size > 1 << 20, "some chunks")
    kill(running.one("qb-seal") if stage == "qb-seal" else valve(running), signal.SIGKILL)
    running.release()
    running.end()
    done = run("qb-unseal", "--any-writer", "-i", folder / "identity", "--verify", data=(tmp_path / "out").read_bytes())
    assert done.returncode == (4 if stage == "qb-seal" else 0), done.stderr  # a reader of its own cannot know


def valve(running: Running) -> int:
    return next(pid for pid in running.processes() if "valve" in words(pid))


@pytest.mark.parametrize("stage", ["qb-unseal", "gzip", "qb-volwrite", "qb-run"])
def test_a_stage_that_restores(stage: str, running: Running, tmp_path: Path) -> None:
    running.hold_in(MEMBER, 3000000)
    running.start(f"exec {RESTORE}")
    running.hold()
    running.one("qb-volwrite")
    kill(running.one(stage), signal.SIGKILL)
    if stage in ("gzip", "qb-volwrite"):
        running.release()
    assert running.end()[0] == (-signal.SIGKILL if stage == "qb-run" else 1)
    running.gone()
    assert not (tmp_path / "out" / MEMBER).exists()


# --- no reader ---

CLOSED = {
    "qb-seal": ("qb-seal -q --opaque -R to a <root.img", 1),
    "qb-header": ("qb-header write --backup-id 20260101T000000-0123456789abcdef -R to --secret-fd 4 4>/dev/null", 1),
    "qb-unseal": ("qb-unseal --any-writer -i identity vm1/root.img <backup.qb", 1),
}


@pytest.mark.parametrize("program", CLOSED)
def test_stdout_is_closed(program: str, running: Running) -> None:
    text, status = CLOSED[program]
    running.start(f"{text} >&-")
    found, errors = running.end()
    assert found == status
    assert len(errors.splitlines()) == 1 and "standard output" in errors, errors
    running.start(f"{text} | true")
    assert running.end() == (141, "")


def test_the_descriptor_of_the_secret_is_closed(running: Running) -> None:
    """Then no header is written, because the chunks could not be sealed."""
    running.start("qb-header write --backup-id 20260101T000000-0123456789abcdef -R to --secret-fd 9 >$OUT 9>&-")
    assert running.end() == (1, "qb-header: error: cannot write the passphrase to descriptor 9: Bad file descriptor\n")
    assert (Path(running.environment["OUT"])).read_bytes() == b""
