"""Volumes that NBD servers export, with the servers nbdkit and qemu-nbd."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from devices import make_sparse, peak_memory, volume_stream
from nbdservers import nbdkit, qemu_nbd
from running import wait_until
from support import copy_of, environment, need, run

KIB, MIB = 1 << 10, 1 << 20
DATA = random.Random(3).randbytes(3 * MIB + 512)
PIECES = (MIB, DATA), (9 * MIB, DATA[: 64 * KIB])


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return make_sparse(tmp_path / "disk", 16 * MIB, *PIECES)


def failed(done: subprocess.CompletedProcess[bytes], status: int, message: str) -> None:
    """It ended with status and one line of error, perhaps with a hint."""
    first, *rest = done.stderr.decode().splitlines()
    assert (done.returncode, first.partition(" ")[2].startswith("error: ")) == (status, True), done.stderr
    assert message in first and all(line.startswith("hint: ") for line in rest) and len(rest) < 2, done.stderr


def incomplete(output: bytes) -> None:
    """What was written is no complete stream."""
    assert b"\nend " not in output[-100:] and not output[-100:].startswith(b"end ")


# --- reading ---


def test_the_map_and_the_data(disk: Path, tmp_path: Path) -> None:
    with nbdkit(tmp_path, "file", disk) as word:
        done = run("qb-volread", word)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == run("qb-volread", disk).stdout
        assert run("qb-volread", "--raw", word).stdout == disk.read_bytes()
        assert run("qb-volread", "--size", word).stdout == run("qb-volread", "--size", disk).stdout
    with qemu_nbd(tmp_path, "-r", "-f", "raw", disk) as word:
        assert run("qb-volread", "--raw", word).stdout == disk.read_bytes()


@pytest.mark.parametrize("size", [0, 512, 513, 256 * KIB, 256 * KIB + 1])
def test_sizes(tmp_path: Path, size: int) -> None:
    (tmp_path / "disk").write_bytes(DATA[:size])
    with nbdkit(tmp_path, "file", tmp_path / "disk") as word:
        assert run("qb-volread", word).stdout == volume_stream(size, *([(0, DATA[:size])] if size else []))


def test_a_server_without_a_map(disk: Path, tmp_path: Path) -> None:
    with nbdkit(tmp_path, "--filter=noextents", "file", disk) as word:
        assert run("qb-volread", word).stdout == volume_stream(16 * MIB, (0, disk.read_bytes()))


def test_a_server_that_wants_whole_blocks(disk: Path, tmp_path: Path) -> None:
    policy = "blocksize-minimum=8192", "blocksize-preferred=65536", "blocksize-maximum=65536"
    with nbdkit(tmp_path, "--filter=blocksize-policy", "file", disk, *policy, "blocksize-error-policy=error") as word:
        assert run("qb-volread", "--raw", word).stdout == disk.read_bytes()


def test_a_tebibyte_of_holes_in_little_time_and_memory(tmp_path: Path) -> None:
    path = make_sparse(tmp_path / "disk", 1 << 40, (1 << 39, DATA[: 2 * MIB]))
    with nbdkit(tmp_path, "file", path) as word:
        began = time.monotonic()
        assert run("qb-volread", word).stdout == volume_stream(1 << 40, (1 << 39, DATA[: 2 * MIB]))
        assert time.monotonic() - began < 20


def test_memory_does_not_grow(tmp_path: Path) -> None:
    with nbdkit(tmp_path, "pattern", "1G") as word:
        with subprocess.Popen(["qb-volread", word], stdout=subprocess.PIPE, env=environment()) as process:
            assert process.stdout is not None
            for _ in range(96):
                process.stdout.read(MIB)
            peak = peak_memory(process.pid)
            process.kill()
    assert peak < 60 * MIB


def test_over_tcp_by_the_name_of_the_export_and_encrypted(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("alice:0123456789abcdef0123456789abcdef\n")
    tls = "--tls=require", f"--tls-psk={tmp_path}/keys"
    with nbdkit(tmp_path, *tls, "--filter=exportname", "file", disk, "exportname=a", "exportname-strict=true") as word:
        socket = f"socket={word.partition('socket=')[2]}"
        good = f"nbd:nbds+unix://alice@/a?{socket}&tls-psk-file={tmp_path}/keys"
        done = run("qb-volread", "--raw", good)
        assert (done.stdout, done.stderr) == (disk.read_bytes(), b"")
        failed(run("qb-volread", good.replace("/a?", "/b?")), 1, "cannot connect to nbd:nbds+unix://")
        failed(run("qb-volread", word), 1, "cannot connect to nbd:nbd+unix:///?")


def certify(place: Path, name: str) -> None:
    """A key, and a certificate for localhost that only those trust who have it."""
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -addext"
    names = "subjectAltName=DNS:localhost", "-keyout", f"{name}-key.pem", "-out", f"{name}-cert.pem"
    place.mkdir()
    subprocess.run([*words.split(), *names], cwd=place, check=True, capture_output=True)


def test_a_server_is_trusted_by_its_certificate(disk: Path, tmp_path: Path) -> None:
    need("nbdkit", "openssl")
    certify(tmp_path / "server", "server")
    certify(tmp_path / "other", "ca")
    shutil.copy(tmp_path / "server/server-cert.pem", tmp_path / "server/ca-cert.pem")
    with socket.create_server(("localhost", 0)) as listening:
        tls = f"--tls=require --tls-certificates={tmp_path}/server"
        text = f"LISTEN_PID=$$ LISTEN_FDS=1 exec nbdkit -f {tls} file {disk} 3<&{listening.fileno()} 2>/dev/null"
        with subprocess.Popen(["bash", "-c", text], pass_fds=[listening.fileno()]) as server:
            try:
                uri = f"nbd:nbds://localhost:{listening.getsockname()[1]}/"
                good = f"{uri}?tls-certificates={tmp_path}/server"
                done = run("qb-volread", "--raw", good)
                assert (done.stdout, done.stderr) == (disk.read_bytes(), b"")
                for bad in good.replace("/server", "/other"), good.replace("localhost", "127.0.0.1"), uri:
                    done = run("qb-volread", bad)
                    assert (done.returncode, done.stdout) in ((1, b""), (5, b"")) and b"certificate" in done.stderr, bad
            finally:
                server.kill()


@pytest.mark.parametrize(
    ("word", "status", "message"),
    [
        ("nbd:disk", 2, "nbd:disk is not a URI of NBD"),
        ("nbd:ssh://host/x", 2, "is not a URI of NBD"),
        ("nbd:nbd+unix:///", 2, "socket"),
        ("nbd:nbd+unix:///?socket=/nowhere/socket", 1, "No such file or directory"),
        ("nbd:nbd://localhost:1/", 1, "Connection refused"),
    ],
)
def test_what_is_no_server(word: str, status: int, message: str) -> None:
    for argv in ("qb-volread", word), ("qb-volread", "--size", word), ("qb-volwrite", "--overwrite", word):
        failed(run(*argv, data=volume_stream(0)), status, message)


def test_there_are_no_snapshots(disk: Path, tmp_path: Path) -> None:
    with nbdkit(tmp_path, "file", disk) as word:
        failed(run("qb-volread", "--state=snapshot", word), 5, "no snapshot can be taken of it")
        failed(run("qb-volread", "--state=before-start", word), 2, "no state from before the start")
        failed(run("qb-snapshot", "take", word), 5, "no snapshot can be taken of it")


# --- servers that fail ---


def evil(tmp_path: Path, pread: str, size: str = "16M", **more: str) -> tuple[Path | str, ...]:
    calls = {"get_size": f"echo {size}", "pread": pread, **more}
    return ("eval", *(f"{name}={text}" for name, text in calls.items()))


@pytest.mark.parametrize(
    ("pread", "message"),
    [
        ("echo EIO >&2; exit 1", "at byte 0: Input/output error"),
        ("head -c 100 /dev/zero", "at byte 0: Input/output error"),
        ("[ $4 -lt 4194304 ] || { kill -9 $PPID; exit 1; }; head -c $3 /dev/zero", "ended the connection"),
    ],
    ids=["error", "short", "dies"],
)
def test_a_read_that_fails(tmp_path: Path, pread: str, message: str) -> None:
    with nbdkit(tmp_path, *evil(tmp_path, pread)) as word:
        done = run("qb-volread", word)
    failed(done, 1, message)
    incomplete(done.stdout)


def test_a_server_that_lies_about_its_size(disk: Path, tmp_path: Path) -> None:
    lie = f"dd if={disk} iflag=skip_bytes,count_bytes,fullblock skip=$4 count=$3 status=none"
    with nbdkit(tmp_path, *evil(tmp_path, lie, "20M")) as word:
        done = run("qb-volread", word)
    failed(done, 1, "cannot read nbd:")
    incomplete(done.stdout)


@pytest.mark.parametrize("hanging", ["get_size", "pread"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_while_a_server_hangs(tmp_path: Path, hanging: str, number: int) -> None:
    calls = {"get_size": "echo 1M", "pread": "head -c $3 /dev/zero"}
    calls[hanging] = f"touch {tmp_path}/hangs; sleep 60"
    with nbdkit(tmp_path, "eval", *(f"{name}={text}" for name, text in calls.items())) as word:
        process = subprocess.Popen(["qb-volread", word], stdout=subprocess.DEVNULL, env=environment())
        wait_until((tmp_path / "hangs").exists, "it waits for the server")
        process.send_signal(number)
        assert process.wait(20) == -number


# --- writing ---


@pytest.mark.parametrize(
    "words", [(), ("--filter=nozero",), ("--filter=noextents",)], ids=["all", "nozero", "noextents"]
)
def test_every_byte_of_the_export_is_written_or_zeroed(disk: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "target").write_bytes(b"\xff" * 17 * MIB)
    stream = run("qb-volread", disk).stdout
    with nbdkit(tmp_path, *words, "file", tmp_path / "target") as word:
        failed(run("qb-volwrite", word, data=stream), 5, "already exists")
        assert (tmp_path / "target").read_bytes() == b"\xff" * 17 * MIB
        done = run("qb-volwrite", "--overwrite", "--verify", word, data=stream)
        assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "target").read_bytes() == disk.read_bytes() + bytes(MIB)


def test_zeros_are_holes_where_the_server_can(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"\xff" * 16 * MIB)
    with nbdkit(tmp_path, "file", tmp_path / "target") as word:
        assert run("qb-volwrite", "--overwrite", word, data=run("qb-volread", disk).stdout).returncode == 0
    assert (tmp_path / "target").stat().st_blocks * 512 < 5 * MIB


def test_what_is_zero_already_is_left_alone(tmp_path: Path) -> None:
    """A tebibyte of zeros would need 128 MiB of tables in an image."""
    with nbdkit(tmp_path, "memory", "1T") as word:
        stream = volume_stream(1 << 40, (1 << 39, DATA[:MIB]))
        assert run("qb-volwrite", "--overwrite", word, data=stream).returncode == 0
        assert run("qb-volread", word).stdout == stream


def test_writing_whole_blocks(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"\xff" * MIB)
    policy = "blocksize-minimum=8192", "blocksize-preferred=65536", "blocksize-maximum=65536"
    with nbdkit(
        tmp_path, "--filter=blocksize-policy", "file", tmp_path / "target", *policy, "blocksize-error-policy=error"
    ) as word:
        stream = volume_stream(MIB - 77, (512, DATA[:1024]), (100 * KIB + 512, DATA[: 300 * KIB]))
        done = run("qb-volwrite", "--overwrite", "--verify", word, data=stream)
        assert (done.returncode, done.stderr) == (0, b"")
    wanted = bytes(512) + DATA[:1024] + bytes(99 * KIB) + DATA[: 300 * KIB]
    assert (tmp_path / "target").read_bytes() == wanted.ljust(MIB, b"\0")


def test_refused_targets(disk: Path, tmp_path: Path) -> None:
    stream = run("qb-volread", disk).stdout
    with nbdkit(tmp_path, "-r", "memory", "16M") as word:
        failed(run("qb-volwrite", "--overwrite", word, data=stream), 5, "is read-only")
    with nbdkit(tmp_path, "memory", "15M") as word:
        failed(run("qb-volwrite", "--overwrite", word, data=stream), 5, "is too small: it has 15728640 bytes")
        failed(run("qb-volwrite", "--overwrite", "--raw", word, data=bytes(16 * MIB)), 5, "is too small")


@pytest.mark.parametrize("call", ["pwrite", "zero", "flush"])
def test_a_write_that_fails(disk: Path, tmp_path: Path, call: str) -> None:
    calls = {
        "get_size": "echo 16M",
        "pread": "exit 1",
        **{f"can_{name}": "exit 0" for name in ("write", "zero", "flush")},
        **{name: "cat >/dev/null" for name in ("pwrite", "zero", "flush")},
    }
    calls[call] = "echo ENOSPC >&2; cat >/dev/null; exit 1"
    calls["zero"] = calls["zero"].replace("cat >/dev/null", ":")
    calls["flush"] = calls["flush"].replace("cat >/dev/null", ":")
    with nbdkit(tmp_path, "eval", *(f"{name}={text}" for name, text in calls.items())) as word:
        done = run("qb-volwrite", "--overwrite", word, data=run("qb-volread", disk).stdout)
    failed(done, 1, "No space left on device")


# --- the binding of libnbd ---


def test_it_is_loaded_by_this_kind_alone(disk: Path, tmp_path: Path) -> None:
    """What sys.path has of that name does not matter either."""
    programs = copy_of(tmp_path / "copy", "bin", "qbtools")
    (programs / "qbtools/volumes/nbd/binding.py").write_text("raise SystemError('loaded')\n")
    assert run(programs / "bin/qb-volread", disk).returncode == 0
    assert b"loaded" in run(programs / "bin/qb-volread", "nbd:nbd://localhost/").stderr
    (tmp_path / "nbd.py").write_text("raise SystemError('loaded')\n")
    done = run("qb-volread", "nbd:nbd://localhost:1/", PYTHONPATH=str(tmp_path))
    assert b"Connection refused" in done.stderr and b"loaded" not in done.stderr


def test_the_python_of_the_system_has_it(disk: Path, tmp_path: Path) -> None:
    """The stage starts again under it, with its words, its input and its output."""
    programs = copy_of(tmp_path / "copy", "bin", "qbtools")
    binding = programs / "qbtools/volumes/nbd/binding.py"
    text = binding.read_text().replace('"/usr/bin/python3"', repr(f"{tmp_path}/python"))
    text = text.replace(
        "module = _ordinary() or _by_path(_places())", "module = None if 'WENT' not in os.environ else _ordinary()"
    )
    binding.write_text(text)
    (tmp_path / "python").write_text('#!/bin/sh\nWENT=1 exec /usr/bin/python3 "$@"\n')
    (tmp_path / "python").chmod(0o755)
    with nbdkit(tmp_path, "memory", "16M") as word:
        stream = run("qb-volread", disk).stdout
        done = run(programs / "bin/qb-volwrite", "--overwrite", word, data=stream)
        assert (done.returncode, done.stderr) == (0, b"")
        assert run(programs / "bin/qb-volread", "--raw", word).stdout == disk.read_bytes()
        # pip installs the programs apart from the package, and they are run by its Python.
        shutil.copytree(programs / "qbtools", tmp_path / "lib/qbtools")
        script = copy_of(tmp_path / "apart", "bin") / "bin/qb-volread"
        script.write_text(script.read_text().replace("/usr/bin/env -S python3 -IS", sys.executable))
        done = run(script, "--raw", word, PYTHONPATH=str(tmp_path / "lib"))
        assert (done.stdout, done.stderr) == (disk.read_bytes(), b"")
        secret = tmp_path / "passphrase"
        secret.write_text("correct horse\n")
        secret.chmod(0o600)
        backup = programs / "bin/qb-backup", "-q", f"--passphrase-file={secret}"
        done = run(backup[0], "create", *backup[1:], "--logn=10", f"vm:root={word}")
        assert (done.returncode, done.stderr) == (0, b"")
        target = f"vm:root=qcow2:{tmp_path}/new"
        done = run(backup[0], "restore", *backup[1:], "--map", target, "-", data=done.stdout)
        assert (done.returncode, done.stderr) == (0, b"")
        assert run("qb-volread", "--raw", f"qcow2:{tmp_path}/new").stdout == disk.read_bytes()
    done = run(backup[0], "create", *backup[1:], f"vm:root={word}")
    failed(done, 1, f"cannot connect to {word}: connect: No such file or directory")
    failed(run(backup[0], "create", *backup[1:], "vm:root=nbd:x"), 2, "nbd:x is not a URI of NBD")
    (tmp_path / "python").write_text('#!/bin/sh\nexec /usr/bin/python3 "$@"\n')  # it does not have it either
    failed(run(programs / "bin/qb-volread", "nbd:nbd://localhost/"), 1, "libnbd is missing for Python 3.")
    os.unlink(tmp_path / "python")
    failed(run(programs / "bin/qb-volread", "nbd:nbd://localhost/"), 1, "the Python binding of libnbd is not installed")
