"""What pipes do to every stage: a reader that ends early, a writer that writes small pieces."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from support import bash

SIZE = 3 << 20
"""Bytes of the volume: more than a pipe holds."""

SEAL = "--logn 10 --chunk-size 256K --passphrase-file passphrase"
OPEN = "--passphrase-file passphrase"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume, archives of it (compression none), what goes from stage to stage; `dribble`."""
    place = tmp_path_factory.mktemp("pipes")
    (place / "root.img").write_bytes(os.urandom(SIZE))
    (place / "passphrase").write_text("pipes\n")
    (place / "passphrase").chmod(0o600)
    (place / "list").write_text("vm1/a\troot.img\nvm1/b\troot.img\nend\n")
    made = bash(
        f"cd {place} && qb-volread root.img >stream && qb-tarwrite a <stream >inner.tar &&"
        f" qb-seal {SEAL} --compression none a <inner.tar >a.qb &&"
        f" qb-backup create -q --compress none {SEAL} -o backup.qb root.img"
    )
    assert (made.returncode, made.stderr) == (0, b"")
    return place


@pytest.mark.parametrize(
    "command",
    [
        "qb-volread root.img",
        "qb-volread --raw root.img",
        "qb-tarwrite a <stream",
        "qb-tarextract <inner.tar",
        "qb-tarextract --raw <inner.tar",
        f"qb-seal --opaque {SEAL} a <root.img",
        f"qb-seal --opaque {SEAL} --from-command 'cat \"$QB_SOURCE\"' list",
        f"qb-unseal {OPEN} a <a.qb",
        f"qb-unseal {OPEN} --to-command cat <a.qb",
        f"qb-backup create -q --compress none {SEAL} root.img",
    ],
)
def test_a_reader_that_leaves(command: str, folder: Path) -> None:
    """Status 141, as the shell reports a filter whose reader has ended, and no message."""
    done = bash(f"cd {folder} && {command} | head -c 1000 | wc -c; printf %s ${{PIPESTATUS[0]}}")
    count, status = done.stdout.split()
    assert count == b"1000"
    if "--to-command" in command:
        # Here it is the CMD that dies of it, and qb-unseal says so.
        assert (status, done.stderr) == (b"1", b"qb-unseal: error: a: the command was killed by SIGPIPE\n")
    else:
        assert (status, done.stderr) == (b"141", b"")


def test_a_reader_that_leaves_ends_the_commands_too(folder: Path, tmp_path: Path) -> None:
    """The running command is killed immediately, not when it writes the next time."""
    done = bash(
        f"cd {folder} && qb-seal --opaque {SEAL} --from-command 'echo $$ >{tmp_path}/pid; cat root.img; sleep 600'"
        " list |"
        f" head -c 1000 >/dev/null; kill -0 $(cat {tmp_path}/pid)"
    )
    assert done.returncode == 1
    assert b"No such process" in done.stderr


# Reads a file and gives it on by 1 to 700 bytes, now and then only one.
DRIBBLE = """
import os, random, sys
random.seed(sys.argv[1])
with open(sys.argv[1], "rb") as file:
    data = file.read()
at = 0
while at < len(data):
    at += os.write(1, data[at:at + random.choice((1, 2, 3, 511, 512, 513, 700))])
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like folder, with a volume with holes that is small enough to be written byte by byte."""
    place = tmp_path_factory.mktemp("small")
    with (place / "root.img").open("wb") as file:
        file.truncate(900_001)
        for offset in (70_000, 300_000, 890_000):
            file.seek(offset)
            file.write(random.Random(offset).randbytes(9_000))
    (place / "dribble.py").write_text(DRIBBLE)
    (place / "passphrase").write_text("pipes\n")
    (place / "passphrase").chmod(0o600)
    made = bash(
        f"cd {place} && qb-volread root.img >stream && qb-tarwrite a <stream >inner.tar && gzip -c <inner.tar >a.gz &&"
        f" qb-seal --opaque --logn 10 --chunk-size 10000 {OPEN} a <a.gz >a.qb &&"
        f" qb-backup create -q --logn 10 --chunk-size 10000 {OPEN} -o backup.qb root.img && mkfifo fifo"
    )
    assert (made.returncode, made.stderr) == (0, b"")
    return place


@pytest.mark.parametrize(
    ("source", "command", "result"),
    [
        ("stream", "qb-tarwrite a", "inner.tar"),
        ("root.img", "qb-tarwrite --raw --size 900001 a | qb-tarextract --raw", "root.img"),
        ("inner.tar", "qb-tarextract", "stream"),
        ("a.gz", f"qb-seal --opaque --logn 10 --chunk-size 10000 {OPEN} a | qb-unseal {OPEN} a", "a.gz"),
        ("a.qb", f"qb-unseal {OPEN} a", "a.gz"),
        ("a.qb", f"qb-unseal {OPEN} --to-command cat", "a.gz"),
        ("a.qb", f"qb-unseal {OPEN} --verify && cat root.img", "root.img"),
        ("a.qb", "qb-unseal --structure && cat root.img", "root.img"),
        ("stream", "rm -f out; qb-volwrite --verify out && cat out", "root.img"),
        ("root.img", "rm -f out; qb-volwrite --raw out && cat out", "root.img"),
        ("backup.qb", f"rm -rf to; qb-backup restore --to to {OPEN} && cat to/root/root.img", "root.img"),
        ("backup.qb", f"qb-backup verify {OPEN} && cat root.img", "root.img"),
    ],
)
def test_a_writer_that_gives_little_at_a_time(source: str, command: str, result: str, small: Path) -> None:
    """Through a FIFO, byte by byte in places: the same as from a file."""
    done = bash(f"cd {small} && {{ python3 dribble.py {source} >fifo & {{ {command}; }} <fifo; }} | cmp - {result}")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_passphrase_arrives_byte_by_byte(small: Path) -> None:
    done = bash(
        f"cd {small} && qb-unseal --passphrase-fd 3 a <a.qb 3< <(for c in p i p e s; do printf $c; sleep 0.02; done) |"
        " cmp - a.gz"
    )
    assert (done.returncode, done.stderr) == (0, b"")
