"""qb-compress and qb-decompress with the real programs, with such as fail, and with none."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from pathlib import Path

import pytest
from running import Running, wait_until
from support import BIN, bash, environment, need, run

from qbtools.streams import SPOILT

GZIPS = ("igzip", "pigz", "gzip")
FILTERS = ("gzip", "bzip2", "xz", "zstd")
DECOMPRESSING = (*FILTERS, "lzma")
PROGRAM = {"lzma": "xz"}
MAKE = {"lzma": "xz --format=lzma"}
DATA = random.Random(1).randbytes(300_000) + bytes(300_000)
NAME = "vm1/root.img"

FLIP = "python3 -c 'import sys; d = bytearray(sys.stdin.buffer.read()); d[{}] ^= 1; sys.stdout.buffer.write(d)'"


def only(place: Path, *names: str) -> str:
    """A PATH with only these compressors."""
    folder = place / f"only-{'-'.join(names)}"
    folder.mkdir()
    for name in ("python3", "bash", "cat", "head", "tail", "sleep", *names):
        path = shutil.which(name)
        assert path
        (folder / name).symlink_to(path)
    if "python3" not in names:  # through the link a virtual environment is not found
        (folder / "python3").unlink()
        fake(folder, "python3", f'exec {sys.executable} "$@"', interpreter="/bin/sh")
    return f"{BIN}:{folder}"


def fake(folder: Path, name: str, text: str, interpreter: str = "/bin/bash") -> str:
    """Creates a program with this text; returns a PATH with it in front."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!{interpreter}\n{text}\n")
    (folder / name).chmod(0o755)
    return f"{BIN}:{folder}:{environment()['PATH']}"


def compressed(filter_name: str, data: bytes = DATA) -> bytes:
    need(PROGRAM.get(filter_name, filter_name))
    return run(*MAKE.get(filter_name, filter_name).split(), "-c", data=data).stdout


# --- available programs ---


@pytest.mark.parametrize("name", [*FILTERS, "none"])
@pytest.mark.parametrize("data", [DATA, b""], ids=["data", "nothing"])
def test_there_and_back(name: str, data: bytes) -> None:
    if name != "none":
        need(name)
    made = run("qb-compress", name, data=data)
    assert (made.returncode, made.stderr) == (0, b"")
    back = run("qb-decompress", name, data=made.stdout)
    assert (back.returncode, back.stdout, back.stderr) == (0, data, b"")
    if name == "none":
        assert made.stdout == data
    else:
        assert run(name, "-dc", data=made.stdout).stdout == data
        assert not data or len(made.stdout) < len(data)


@pytest.mark.parametrize("name", DECOMPRESSING)
def test_what_the_program_makes_is_read(name: str) -> None:
    back = run("qb-decompress", name, data=compressed(name))
    assert (back.returncode, back.stdout, back.stderr) == (0, DATA, b"")


def test_lzma_is_only_read() -> None:
    done = run("qb-compress", "lzma", data=DATA)
    assert (done.returncode, done.stdout) == (2, b"")
    assert (
        done.stderr == b"qb-compress: error: unknown filter: lzma\nhint: the filters are gzip, bzip2, xz, zstd, none\n"
    )


@pytest.mark.parametrize("writer", GZIPS)
def test_each_gzip_reads_what_each_writes(writer: str, tmp_path: Path) -> None:
    need(*GZIPS)
    made = run("qb-compress", "gzip", data=DATA, PATH=only(tmp_path, writer))
    assert (made.returncode, made.stderr) == (0, b"")
    for reader in GZIPS:
        path = f"{BIN}:{tmp_path}/only-{reader}" if reader == writer else only(tmp_path, reader)
        back = run("qb-decompress", "gzip", data=made.stdout, PATH=path)
        assert (back.returncode, back.stdout, back.stderr) == (0, DATA, b"")


CALLS = {
    ("gzip", GZIPS): ("igzip -1 -c", "igzip -dc"),
    ("gzip", ("pigz", "gzip")): ("pigz -cq", "pigz -dc"),
    ("gzip", ("gzip",)): ("gzip -c", "gzip -dc"),
    ("bzip2", ("bzip2",)): ("bzip2 -cq", "bzip2 -dc"),
    ("xz", ("xz",)): ("xz -cq", "xz -dcq --memlimit-decompress=128MiB"),
    ("lzma", ("xz",)): ("", "xz -dcq --memlimit-decompress=128MiB --format=lzma"),
    ("zstd", ("zstd",)): ("zstd -cq", "zstd -dcq --memory=128MB"),
}


@pytest.mark.parametrize(("which", "calls"), CALLS.items(), ids=[f"{f} {'-'.join(there)}" for f, there in CALLS])
def test_the_fastest_available_one_is_used(
    which: tuple[str, tuple[str, ...]], calls: tuple[str, str], tmp_path: Path
) -> None:
    name, there = which
    log = tmp_path / "log"
    path = only(tmp_path)
    for program in there:
        fake(tmp_path / "only-", program, f'echo "{program} $*" >>{log}; exec cat')
    for program, call in zip(("qb-compress", "qb-decompress"), calls, strict=True):
        if call:
            log.write_text("")
            assert run(program, name, data=b"x", PATH=path).stdout == b"x"
            assert log.read_text() == f"{call}\n"


def test_the_environment_changes_nothing(tmp_path: Path) -> None:
    changes = {"GZIP": "--nonsense", "PIGZ": "--nonsense", "XZ_OPT": "-9e", "XZ_DEFAULTS": "--nonsense"}
    changes.update({"ZSTD_CLEVEL": "19", "BZIP2": "--nonsense", "BZIP": "--nonsense", "POSIXLY_CORRECT": "1"})
    for name in FILTERS:
        need(name)
        plain = run("qb-compress", name, data=DATA).stdout
        path = only(tmp_path, "gzip") if name == "gzip" else environment()["PATH"]
        if name == "gzip":
            plain = run("qb-compress", name, data=DATA, PATH=path).stdout
        changed = run("qb-compress", name, data=DATA, **{"PATH": path, **changes})
        assert (changed.returncode, changed.stdout, changed.stderr) == (0, plain, b"")
        back = run("qb-decompress", name, data=plain, **{"PATH": path, **changes})
        assert (back.returncode, back.stdout, back.stderr) == (0, DATA, b"")
    path = fake(tmp_path / "programs", "igzip", "export -p")
    listed = run("qb-compress", "gzip", PATH=path, **changes).stdout.decode()
    assert "PATH=" in listed and "LC_ALL=" in listed
    assert not [name for name in changes if f" {name}=" in listed]


@pytest.mark.parametrize("program", ["qb-compress", "qb-decompress"])
def test_a_program_that_is_missing(program: str, tmp_path: Path) -> None:
    hints = {
        "gzip": ("no igzip or pigz or gzip in PATH", "install the package isal or pigz or gzip"),
        "bzip2": ("no bzip2 in PATH", "install the package bzip2"),
        "xz": ("no xz in PATH", "install the package xz-utils"),
        "zstd": ("no zstd in PATH", "install the package zstd"),
    }
    path = only(tmp_path)
    for name, (message, hint) in hints.items():
        done = run(program, name, data=DATA, PATH=path)
        assert done.returncode == 1
        assert done.stderr.decode() == f"{program}: error: {message}\nhint: {hint}\n"
        assert done.stdout == SPOILT


# --- damage ---


def refused(done: bytes, status: int, errors: bytes, expected: int, begins: str) -> None:
    """It ended with the expected status and one line, and its output does not look complete."""
    assert (status, errors.count(b"\n")) == (expected, 1), errors
    assert errors.decode().startswith(f"qb-decompress: error: {begins}"), errors
    assert any(done[-10:])


DAMAGE = {
    "cut": "head -c -1",
    "cut in the checksum": "head -c -6",
    "cut in the data": "head -c 100000",
    "cut in the header": "head -c 3",
    "checksum": FLIP.format(-6),
    "data": FLIP.format(150_000),
    "not compressed": "head -c 0; head -c 5000 /dev/urandom",
    "empty": "head -c 0",
}
# The format has no checksum that these could break; the seal protects the data.
NOT_SEEN = {("lzma", "checksum"), ("lzma", "data"), ("zstd", "checksum")}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", DECOMPRESSING)
def test_damage(name: str, kind: str, tmp_path: Path) -> None:
    if (name, kind) in NOT_SEEN:
        return
    (tmp_path / "whole").write_bytes(compressed(name))
    spoilt = bash(f"cat {tmp_path}/whole | {DAMAGE[kind]}").stdout
    paths = [only(tmp_path, program) for program in GZIPS] if name == "gzip" else [environment()["PATH"]]
    for path in paths:
        done = run("qb-decompress", name, data=spoilt, PATH=path)
        refused(done.stdout, done.returncode, done.stderr, 4, "standard input cannot be decompressed: ")


GREEDY = {
    "xz": "xz --lzma2=preset=0,dict=192MiB",
    "lzma": "xz --format=lzma --lzma1=preset=0,dict=192MiB",
    "zstd": "zstd -1 --zstd=wlog=28",
}


@pytest.mark.parametrize("name", GREEDY)
def test_a_stream_that_wants_much_memory(name: str) -> None:
    need(name.replace("lzma", "xz"))
    data = bash(f"head -c 1000000 /dev/zero | {GREEDY[name]} -cq").stdout
    done = run("qb-decompress", name, data=data)
    assert "emory" in done.stderr.decode()
    refused(done.stdout, done.returncode, done.stderr, 4, "standard input cannot be decompressed: ")


@pytest.mark.parametrize(("name", "level"), [("xz", "-9e"), ("lzma", "-9"), ("zstd", "--ultra -22")])
def test_the_highest_level_is_read(name: str, level: str) -> None:
    need(name.replace("lzma", "xz"))
    made = bash(f"{MAKE.get(name, name)} {level} -cq", data=DATA).stdout
    back = run("qb-decompress", name, data=made)
    assert (back.returncode, back.stdout, back.stderr) == (0, DATA, b"")


def test_no_volume_appears_if_the_archive_is_complete_but_the_stream_is_not(tmp_path: Path) -> None:
    """The checksum is wrong: all of the inner archive has been written by then."""
    stream = b"qb-volume 1\nsize 600000\nextents 1\n0 600000\n\n" + DATA + b"end 600000\n"
    archive = run("qb-tarwrite", NAME, data=stream).stdout
    spoilt = bash(FLIP.format(-6), data=compressed("gzip", archive)).stdout
    for program in GZIPS:
        done = bash(
            f"qb-decompress gzip | qb-tarextract {NAME} | qb-volwrite {tmp_path}/v; echo ${{PIPESTATUS[*]}}",
            data=spoilt,
            PATH=f"{only(tmp_path, program)}",
        )
        assert done.stdout == b"4 4 4\n"
        assert not (tmp_path / "v").exists()


@pytest.mark.parametrize("name", ["gzip", "bzip2"])
def test_bytes_after_the_end_are_skipped(name: str, tmp_path: Path) -> None:
    """And they are read to the end, so that the writer meets no closed pipe."""
    (tmp_path / "whole").write_bytes(compressed(name))
    for path in [only(tmp_path, program) for program in GZIPS] if name == "gzip" else [environment()["PATH"]]:
        for behind in ("printf garbage", "head -c 10240 /dev/zero", "head -c 3000000 /dev/urandom", "printf '\\0\\0A'"):
            pipe = f"(cat {tmp_path}/whole; {behind}) | qb-decompress {name} | tail -c 20 | cat -A"
            done = bash(f'{pipe}; echo " ${{PIPESTATUS[*]}}"', PATH=f"{path}:/usr/bin")
            assert (done.stdout, done.stderr) == (b"^@" * 20 + b" 0 0 0 0\n", b""), behind


@pytest.mark.parametrize("name", ["xz", "zstd", "lzma"])
def test_the_others_treat_bytes_after_the_end_as_damage(name: str) -> None:
    done = run("qb-decompress", name, data=compressed(name) + b"garbage")
    refused(done.stdout, done.returncode, done.stderr, 4, "standard input cannot be decompressed: ")


def test_a_second_stream_after_the_first_counts() -> None:
    two = compressed("gzip", b"one") + compressed("gzip", b"two")
    assert run("qb-decompress", "gzip", data=two).stdout == b"onetwo"
    done = run("qb-decompress", "gzip", data=two[:-1])
    refused(done.stdout, done.returncode, done.stderr, 4, "standard input cannot be decompressed: ")


# --- programs that fail ---

BROKEN = "standard input cannot be decompressed"


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("exit 3", 4, f"{BROKEN}: igzip ended with status 3"),
        ("cat; exit 1", 4, f"{BROKEN}: igzip ended with status 1"),
        ("echo igzip: oh >&2; exit 1", 4, f"{BROKEN}: igzip ended with status 1: oh"),
        (r"printf 'a\033b' >&2; exit 1", 4, rf"{BROKEN}: igzip ended with status 1: a\x1bb"),
        ("cat; exit 2", 4, f"{BROKEN}: igzip ended with status 2"),
        ("cat; kill -SEGV $$", 1, "igzip was killed by SIGSEGV"),
        ("kill -TERM $$", 1, "igzip was killed by SIGTERM"),
        ("kill -XFSZ $$", 1, "igzip was killed by SIGXFSZ"),
    ],
)  # fmt: skip
def test_a_decompressor_that_fails(text: str, status: int, said: str, tmp_path: Path) -> None:
    path = fake(tmp_path / "programs", "igzip", text)
    done = run("qb-decompress", "gzip", data=DATA, PATH=path)
    refused(done.stdout, done.returncode, done.stderr, status, f"{said}\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exit 3", "igzip ended with status 3"),
        ("cat; exit 1", "igzip ended with status 1"),
        ("echo igzip: oh >&2; exit 2", "igzip ended with status 2: oh"),
        ("head -c 10; kill -SEGV $$", "igzip was killed by SIGSEGV"),
    ],
)
def test_a_compressor_that_fails(text: str, said: str, tmp_path: Path) -> None:
    done = run("qb-compress", "gzip", data=DATA, PATH=fake(tmp_path / "programs", "igzip", text))
    assert (done.returncode, done.stderr.decode()) == (1, f"qb-compress: error: {said}\n")


def test_its_messages_of_success_are_not_shown(tmp_path: Path) -> None:
    path = fake(tmp_path / "programs", "igzip", "echo all is well >&2; exec cat")
    for program in ("qb-compress", "qb-decompress"):
        done = run(program, "gzip", data=DATA, PATH=path)
        assert (done.returncode, done.stdout, done.stderr) == (0, DATA, b"")


@pytest.mark.parametrize("name", ["none", *FILTERS])
def test_a_full_disk_is_no_damage(name: str) -> None:
    data = DATA if name == "none" else compressed(name)
    for program, text in (("qb-compress", DATA), ("qb-decompress", data)):
        done = bash(f"{program} {name} >/dev/full", data=text)
        assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
        assert name in ("gzip", "bzip2") or b"No space left on device" in done.stderr  # those two don't say why at once
    assert name == "none" or done.stderr.endswith(b"cannot write to standard output: No space left on device\n")


@pytest.mark.parametrize("program", [*GZIPS, "bzip2", "xz", "zstd", "none"])
def test_a_reader_that_leaves_ends_both_quietly(program: str, tmp_path: Path) -> None:
    need(*({program} - {"none"}))
    name = "gzip" if program in GZIPS else program
    path = only(tmp_path, *({program} - {"none"})) + ":/usr/bin" * (program not in GZIPS)
    (tmp_path / "data").write_bytes(random.Random(2).randbytes(3_000_000))
    made = bash(f"qb-compress {name} <data >made; qb-compress {name} <data | true; echo ${{PIPESTATUS[0]}}"
                .replace("data", f"{tmp_path}/data").replace("made", f"{tmp_path}/made"), PATH=path)  # fmt: skip
    assert (made.stdout, made.stderr) == (b"141\n", b"")
    back = bash(f"qb-decompress {name} <{tmp_path}/made | head -c 10 >/dev/null; echo ${{PIPESTATUS[0]}}", PATH=path)
    assert (back.stdout, back.stderr) == (b"141\n", b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("program", ["qb-compress", "qb-decompress"])
def test_a_signal_ends_the_program_too(program: str, number: int, tmp_path: Path) -> None:
    with Running(tmp_path) as run:
        os.mkfifo(tmp_path / "never")
        run.program("igzip", f"#!/bin/bash\ntrap '' TERM INT HUP USR1; echo ready; read -r _ <>{tmp_path}/never")
        pipe = run.start(f"{program} gzip </dev/zero")
        assert pipe.stdout
        assert pipe.stdout.readline() == b"ready\n"
        os.kill(run.one(program), number)
        wait_until(lambda: not run.processes("igzip") and not run.processes(program), "the end of both")
        rest = pipe.stdout.read()
        status, errors = run.end()
    assert status == 128 + number
    assert "qb-compress: " not in errors and "qb-decompress: " not in errors  # bash says that it was a signal
    assert rest.endswith(SPOILT), "who reads on sees no clean end"


def test_a_stopped_program_is_ended_too(tmp_path: Path) -> None:
    with Running(tmp_path) as run:
        pipe = run.start("sleep 60 | qb-decompress zstd | cat")
        wait_until(lambda: len(run.processes("zstd")) == 1, "zstd")
        os.kill(run.one("zstd"), signal.SIGSTOP)
        os.kill(run.one("qb-decompress"), signal.SIGTERM)
        wait_until(lambda: not run.processes("zstd") and not run.processes("qb-decompress"), "the end of both")
        for pid in run.processes("sleep"):
            os.kill(pid, signal.SIGKILL)
        assert pipe.stdout and any(pipe.stdout.read())


def test_a_question_for_progress_ends_nothing(tmp_path: Path) -> None:
    with Running(tmp_path) as run:
        pipe = run.start("printf x | valve 0 | qb-compress gzip | qb-decompress gzip")
        run.hold()
        wait_until(lambda: len(run.processes("igzip")) == 2 or len(run.processes("gzip")) == 2, "both compressors")
        for pid in (*run.processes("igzip"), *run.processes("gzip"), run.one("qb-compress"), run.one("qb-decompress")):
            os.kill(pid, signal.SIGUSR1)
        run.release()
        assert pipe.stdout and pipe.stdout.read() == b"x"
        assert run.end() == (0, "")


@pytest.mark.parametrize("program", ["qb-compress", "qb-decompress"])
def test_they_start_quickly(program: str) -> None:
    """The loaded modules are checked, not the time: a test must not fail on a busy machine."""
    done = run(sys.executable, "-IS", "-X", "importtime", BIN / program, "none", data=b"")
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    assert "qbtools.filters" in loaded
    slow = {
        "subprocess",
        "threading",
        "docopt",
        "site",
        "dataclasses",
        "shutil",
        "tempfile",
        "ctypes",
        "json",
        "struct",
    }
    assert not loaded & slow
    ours = {name for name in loaded if name.startswith("qbtools.") and name.count(".") == 1}
    assert ours - {"qbtools.start", "qbtools.commands"} == {
        f"qbtools.{name}"
        for name in ("errors", "latesignals", "descriptors", "streams", "writers", "programs", "filters")
    } | {f"qbtools.{name}" for name in ("lean", "reports", "environments")}
