"""External programs in our pipes: each compression, one that fails, and bytes after a compressed stream."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from running import OF_FILE
from support import BIN, bash, environment, need, run

SIZE = 300_000
GZIPS = ("gzip", "igzip", "pigz")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume, a passphrase, and for each of GZIPS a directory with all programs but the other two."""
    place = tmp_path_factory.mktemp("compressors")
    (place / "root.img").write_bytes(os.urandom(SIZE // 2) + bytes(SIZE // 2))
    (place / "passphrase").write_text("compressors\n")
    (place / "passphrase").chmod(0o600)
    for kept in GZIPS:
        (place / kept).mkdir()
        program(place / kept, "python3", f'exec {shutil.which("python3")} "$@"')
        for directory in ("/usr/local/bin", "/usr/bin", "/bin"):
            for found in Path(directory).iterdir():
                link = place / kept / found.name
                if not link.exists() and (found.name == kept or found.name not in GZIPS):
                    link.symlink_to(found)
    return place


def program(place: Path, name: str, text: str) -> Path:
    """Creates a program in its own directory, with QB_NAME if it needs it; returns the directory."""
    place.mkdir(exist_ok=True)
    (place / name).write_text(f"{OF_FILE if 'QB_NAME' in text else '#!/bin/bash'}\n{text}\n")
    (place / name).chmod(0o755)
    return place


def backup(folder: Path, *words: str | Path, path: Path | None = None) -> tuple[int, str]:
    """Runs qb-backup, with only path in PATH if it is given."""
    secret = ("--passphrase-file", folder / "passphrase")
    path_of = {"PATH": f"{BIN}:{path}"} if path else {}
    done = run("qb-backup", *words, *secret, **path_of)
    return done.returncode, done.stderr.decode()


def first(place: Path) -> Path:
    """PATH with place in front."""
    return Path(f"{place}:{environment()['PATH']}")


def create(folder: Path, archive: Path, *words: str, path: Path | None = None) -> tuple[int, str]:
    words = ("--logn", "10", "-q", "-o", str(archive), *words, f"vm1:root={folder}/root.img")
    return backup(folder, "create", *words, path=path)


def restore(folder: Path, archive: Path, to: Path, path: Path | None = None) -> tuple[int, str]:
    return backup(folder, "restore", "--to", to, archive, path=path)


# --- each compression ---


# test_roundtrip.py has all of them by hand, and test_any_gzip_program gzip.
@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_each_compression(compression: str, folder: Path, tmp_path: Path) -> None:
    if compression != "none":
        need(compression)
    archive = tmp_path / "a.qb"
    assert create(folder, archive, "--compress", compression) == (0, "")
    header = run("qb-header", "read", "--passphrase-file", folder / "passphrase", archive).stdout.decode()
    if compression == "none":
        assert "compressed=False" in header
        assert archive.stat().st_size > SIZE
    else:
        assert f"compressed=True\ncompression-filter={compression}\n" in header
        assert archive.stat().st_size < SIZE * 0.9
    assert restore(folder, archive, tmp_path / "to") == (0, "")
    assert (tmp_path / "to/vm1/root.img").read_bytes() == (folder / "root.img").read_bytes()


def test_any_gzip_program(folder: Path, tmp_path: Path) -> None:
    """One writes it and another one reads it (test_filters.py has all pairs); the header says gzip."""
    writer, reader = "pigz", "igzip"
    need(*GZIPS)
    archive = tmp_path / "a.qb"
    assert create(folder, archive, path=folder / writer) == (0, "")
    header = run("qb-header", "read", "--passphrase-file", folder / "passphrase", archive).stdout
    assert b"compression-filter=gzip\n" in header
    assert restore(folder, archive, tmp_path / "to", path=folder / reader) == (0, "")
    assert (tmp_path / "to/vm1/root.img").read_bytes() == (folder / "root.img").read_bytes()


def test_the_fastest_available_one_is_used(folder: Path, tmp_path: Path) -> None:
    """The stages have PATH as it is given to qb-backup; test_filters.py has all choices."""
    real, log = shutil.which("gzip"), tmp_path / "log"
    for name in GZIPS:
        # -1 and -c are options of all three, -q too but for igzip.
        program(tmp_path / "programs", name, f'echo {name} >>{log}; exec {real} "$@"')
    path = Path(f"{tmp_path}/programs:{folder}/gzip")
    assert create(folder, tmp_path / "a.qb", path=path) == (0, "")
    assert backup(folder, "verify", tmp_path / "a.qb", path=path) == (0, "")
    assert log.read_text().split() == ["igzip"] * 4  # two files, written and read


def test_without_any_gzip(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "programs"
    shutil.copytree(folder / "gzip", path, symlinks=True)
    (path / "gzip").unlink()
    message = "no igzip or pigz or gzip in PATH\nhint: install the package isal or pigz or gzip\n"
    assert create(folder, tmp_path / "a.qb", path=path) == (1, f"qb-compress: error: {message}")
    assert list(tmp_path.iterdir()) == [path]
    assert create(folder, tmp_path / "a.qb", path=folder / "gzip") == (0, "")
    for words in (("restore", "--to", tmp_path / "to"), ("verify",), ("list",)):
        done = backup(folder, *words, tmp_path / "a.qb", path=path)
        assert done == (1, f"qb-decompress: error: {message}")
    assert not (tmp_path / "to").exists()


# --- one that fails ---


# test_filters.py has more of them.
@pytest.mark.parametrize(
    ("compression", "text", "ending"),
    [
        ("gzip", "head -c 1000; exit 3", "ended with status 3"),
        ("gzip", "kill -SEGV $$", "was killed by SIGSEGV"),
        ("gzip", '$real "$@" | head -c 500; exit 1', "ended with status 1"),
        ("zstd", '$real "$@"; exit 1', "ended with status 1"),
    ],
    ids=["early", "killed", "after a part", "zstd, after all"],
)
def test_a_compressor_that_fails(compression: str, text: str, ending: str, folder: Path, tmp_path: Path) -> None:
    need(compression)
    fake, real = {"gzip": "igzip"}.get(compression, compression), shutil.which(compression)
    # The metadata passes; it is the volume that meets the fault.
    programs = program(
        tmp_path / "programs", fake, f'real={real}\nif [ "$QB_NAME" = qubes.xml ]; then exec $real "$@"; fi\n{text}'
    )
    done = create(folder, tmp_path / "a.qb", "--compress", compression, path=first(programs))
    assert done == (1, f"qb-compress: error: {fake} {ending}\n")
    assert list(tmp_path.iterdir()) == [programs]


def test_on_standard_output_the_manifest_is_missing(folder: Path, tmp_path: Path) -> None:
    programs = program(tmp_path / "programs", "igzip", '/bin/gzip "$@"; [ "$QB_NAME" = qubes.xml ]')
    secret = ("--passphrase-file", folder / "passphrase")
    words = ("create", "--logn", "10", "-q", *secret, "a:root=root.img", "b:root=root.img")
    done = subprocess.run(
        ["qb-backup", *words], cwd=folder, env=environment(PATH=str(first(programs))), capture_output=True, check=False
    )
    said = [line for line in done.stderr.splitlines() if b": backup ID " not in line]
    assert (done.returncode, said) == (1, [b"qb-compress: error: igzip ended with status 1"])
    checked = run("qb-unseal", "--verify", *secret, data=done.stdout)
    assert (checked.returncode, checked.stderr) == (
        4,
        b"qb-unseal: error: the manifest is missing: the archive is incomplete\n",
    )


@pytest.fixture(scope="module")
def good(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole archive."""
    archive = tmp_path_factory.mktemp("good") / "a.qb"
    assert create(folder, archive) == (0, "")
    return archive


NO_GOOD = "qb-decompress: error: standard input cannot be decompressed: igzip ended with status"


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("exit 1", 4, f"{NO_GOOD} 1"),
        ('gzip "$@"; exit 1', 4, f"{NO_GOOD} 1"),
        ('gzip "$@" | head -c 1000; exit 3', 4, f"{NO_GOOD} 3"),
        ("echo why >&2; exit 3", 4, f"{NO_GOOD} 3: why"),
        ("cat", 4, "qb-tarextract: error: "),
        ("kill -KILL $$", 1, "qb-decompress: error: igzip was killed by SIGKILL"),
        ('gzip "$@"; kill -SEGV $$', 1, "qb-decompress: error: igzip was killed by SIGSEGV"),
    ],
    ids=["", "after", "early", "with a word", "not", "killed", "after, killed"],
)
def test_a_decompressor_that_fails(
    text: str, status: int, message: str, folder: Path, good: Path, tmp_path: Path
) -> None:
    programs = program(tmp_path / "programs", "igzip", f'[ "$QB_NAME" != qubes.xml ] || exec gzip "$@"\n{text}')
    commands: list[tuple[str | Path, ...]] = [("restore", "--to", tmp_path / "to", good)]
    if text in ("exit 1", "kill -KILL $$"):  # one of each status: both commands run the same stages
        commands.append(("verify", good))
    for words in commands:
        ended, stderr = backup(folder, *words, path=first(programs))
        # Compressed input brings a hint.
        assert (ended, stderr.count("\n")) == (status, 2 if text == "cat" else 1), stderr
        assert stderr.startswith(message) and (text == "cat" or stderr == f"{message}\n")
    assert not [path for path in (tmp_path / "to").rglob("*") if path.is_file()]


# --- bytes after a compressed stream, and a broken stream ---

PASSED_OVER = [
    "printf garbage",
    "head -c 10240 /dev/zero",
    "head -c 100000 /dev/urandom",
    r"printf '\0\0A'",
    "printf A; gzip -c <root.img",
    "gzip -c </dev/null",
    "head -c 512 /dev/zero | gzip -c",  # zeros behind an inner archive are allowed
]
FLIP = "python3 -c 'import sys; d = bytearray(sys.stdin.buffer.read()); d[{}] ^= 1; sys.stdout.buffer.write(d)'"
BROKEN = {
    "a second one with more": "gzip -c && printf more | gzip -c",
    "a second one that is cut": "gzip -c && head -c 5000 /dev/urandom | gzip -c | head -c 1000",
    "cut": "gzip -c | head -c -1",
    "cut before the checksum": "gzip -c | head -c -9",
    "cut in the data": "gzip -c | head -c 70000",
    "empty": "cat >/dev/null",
    "not compressed": "cat",
    "checksum": "gzip -c | " + FLIP.format(-5),
    "length": "gzip -c | " + FLIP.format(-1),
}


def spoilt(folder: Path, place: Path, commands: list[str]) -> Path:
    """An archive of domains d0, d1, ..., each compressed by a command of its own.

    qb-backup would refuse most of that, so only the metadata is its own.
    """
    volumes = [f"d{at}:root={folder}/root.img" for at in range(len(commands))]
    good, metadata, archive = place / "good.qb", place / "meta.xml", place / "spoilt.qb"
    secret = f"--passphrase-file={folder}/passphrase"
    assert backup(folder, "create", "--logn", "10", "-q", "-o", good, *volumes) == (0, "")
    done = bash(f"qb-unseal {secret} qubes.xml <{good} | gzip -dc | qb-tarextract --raw qubes.xml >{metadata}")
    assert (done.returncode, done.stderr) == (0, b"")
    cases = "".join(f"vm{at}/root.img) {command} ;;\n" for at, command in enumerate(commands, 1))
    programs = program(place / "programs", "compressor", f"cd {folder}\ncase $QB_NAME in\n{cases}esac\ncat >/dev/null")
    size = metadata.stat().st_size
    cmd = (
        f"if [ $QB_NAME = qubes.xml ]; then qb-tarwrite --raw --size {size} qubes.xml <{metadata} | gzip -c;"
        f' else qb-volread "$QB_SOURCE" | qb-tarwrite "$QB_NAME" | {programs}/compressor; fi'
    )
    names = ["qubes.xml", *(f"vm{at}/root.img" for at in range(1, len(commands) + 1))]
    files = "".join(f"{name}\t{folder}/root.img\n" for name in names) + "end\n"
    made = run("qb-seal", "--opaque", "-q", "--logn", "10", secret, "--from-command", cmd, "-", data=files.encode())
    assert (made.returncode, made.stderr) == (0, b"")
    archive.write_bytes(made.stdout)
    return archive


@pytest.fixture(scope="module")
def broken(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spoilt(folder, tmp_path_factory.mktemp("broken"), list(BROKEN.values()))


@pytest.fixture(scope="module")
def followed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    commands = [f"gzip -c && {{ {command}; }}" for command in PASSED_OVER]
    return spoilt(folder, tmp_path_factory.mktemp("followed"), commands)


@pytest.mark.parametrize("reader", ["gzip", "pigz"])
def test_bytes_after_a_compressed_stream_are_skipped(reader: str, folder: Path, followed: Path, tmp_path: Path) -> None:
    """gzip warns about it, pigz leaves most of it unread; test_filters.py has all three."""
    need(reader)
    assert restore(folder, followed, tmp_path / "to", path=folder / reader) == (0, "")
    for at in range(len(PASSED_OVER)):
        assert (tmp_path / f"to/d{at}/root.img").read_bytes() == (folder / "root.img").read_bytes()


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_stream_fails_by_hand(kind: str, folder: Path, tmp_path: Path) -> None:
    """Even if the inner archive in it is complete, no volume appears.

    With any of the three, if it is a kind that test_filters.py does not have for each of them.
    """
    need(*GZIPS)
    made = f"cd {folder}; qb-volread root.img | qb-tarwrite vm1/root.img | {{ {BROKEN[kind]}; }} >{tmp_path}/stream"
    assert bash(f"{made}; cat >/dev/null").returncode == 0
    text = "qb-decompress gzip <stream | qb-tarextract vm1/root.img | qb-volwrite root.img; echo ${PIPESTATUS[*]}"
    for reader in GZIPS if kind == "length" or "second" in kind else GZIPS[:1]:
        done = bash(f"cd {tmp_path} && {{ {text}; }}", PATH=f"{BIN}:{folder / reader}")
        first, second, last = map(int, done.stdout.split())
        assert 4 in (first, second) and {first, second} <= {0, 4, 141} and last == 4, (reader, done.stderr)
        assert not (tmp_path / "root.img").exists()


# One for each stage that finds it, and one in a second stream.
@pytest.mark.parametrize("kind", ["a second one with more", "cut in the data", "empty", "not compressed"])
def test_a_broken_stream_in_an_archive(kind: str, folder: Path, broken: Path, tmp_path: Path) -> None:
    at = list(BROKEN).index(kind)
    words = ("restore", "--to", tmp_path / "to", "--only", f"d{at}", broken)
    status, stderr = backup(folder, *words)
    assert (status, stderr.count("\n")) == (4, 1), stderr
    early = f"qb-unseal: error: vm{at + 1}/root.img: qb-tarextract: standard input ends too early\n"
    assert stderr == early or stderr.startswith(("qb-decompress: error: ", "qb-tarextract: error: ")), stderr
    assert not [path for path in (tmp_path / "to").rglob("*") if path.is_file()]


def test_an_archive_of_broken_streams_is_not_good(folder: Path, broken: Path) -> None:
    assert backup(folder, "verify", broken)[0] == 4
