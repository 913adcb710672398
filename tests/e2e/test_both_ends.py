"""A program fails in a manual pipe without pipefail: qb-seal notices it and makes no complete archive."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support import bash, run

FILTERS = {
    "igzip": "gzip",
    "pigz": "gzip",
    "gzip": "gzip",
    "qb-compress gzip": "gzip",
    "xz -0": "xz",
    "zstd": "zstd",
    "bzip2": "bzip2",
    "cat": "none",
}
TELL_NOTHING = ("zstd", "bzip2")
NO_STREAM = ["qb-volread none", "true", "qb-volread --sise disk.img"]
CUT = ["qb-volread disk.img | head -c 70000", "qb-volread disk.img | head -c 65625"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ends")
    (place / "disk.img").write_bytes(random.Random(1).randbytes(200_000) + bytes(1 << 20))
    (place / "passphrase").write_text("both ends\n")
    (place / "passphrase").chmod(0o600)
    (place / "list").write_text("vm1/a\tx\nend\n")
    return place


def sealed(folder: Path, before: str, options: str) -> tuple[int, bytes, list[str]]:
    """The status of only qb-seal in a pipe, its output, and its messages."""
    text = f"cd {folder} && ({before}) 2>/dev/null | qb-seal --logn 10 --passphrase-file passphrase {options}"
    done = bash(f"{text} vm1/a; exit ${{PIPESTATUS[1]}}")
    return done.returncode, done.stdout, done.stderr.decode().splitlines()


def opens(folder: Path, data: bytes) -> bool:
    return run("qb-unseal", "--passphrase-file", folder / "passphrase", "--verify", data=data).returncode == 0


@pytest.mark.parametrize("program", FILTERS)
def test_a_pipe(program: str, folder: Path) -> None:
    how = f"--compression {FILTERS[program]}"
    text = "{} | qb-tarwrite vm1/a | " + f"{program} {'' if program == 'cat' or ' gzip' in program else '-c'}"
    status, data, said = sealed(folder, text.format("qb-volread disk.img"), how)
    assert (status, said) == (0, []) and opens(folder, data)
    # Whatever the stage before has done, the compressor sees one of these.
    bad = NO_STREAM + CUT if program == "gzip" else NO_STREAM[:1] + CUT[:1]
    for before in bad if FILTERS[program] not in TELL_NOTHING else NO_STREAM[:1]:
        status, data, said = sealed(folder, text.format(before), how)
        assert status == 4 and said[0].startswith("qb-seal: error: standard input ") and len(said) <= 2
    assert not opens(folder, data)
    assert sealed(folder, f"true | {program} {'' if program == 'cat' or ' gzip' in program else '-c'}", how)[0] == 4


def test_a_compressor_that_fails(folder: Path) -> None:
    for name in ("gzip", "zstd"):
        (folder / "broken").mkdir(exist_ok=True)
        for program in ("igzip", "pigz", "gzip", "zstd"):
            (folder / "broken" / program).write_text('#!/bin/sh\nexec head -c 70000 "$0.data" -\n')
            (folder / "broken" / program).chmod(0o755)
            whole = bash(f"cd {folder} && qb-volread disk.img | qb-tarwrite vm1/a | {name} -c").stdout
            (folder / "broken" / f"{program}.data").write_bytes(whole)
        before = f"qb-volread disk.img | qb-tarwrite vm1/a | PATH=broken:$PATH qb-compress {name}"
        status, _data, said = sealed(folder, before, f"--compression {name}")
        assert (status, said[0][:30]) == (4, "qb-seal: error: standard input")


@pytest.mark.parametrize(
    ("before", "options", "line", "hint"),
    [
        ("cat disk.img", "", "is not gzip data", "qb-tarwrite --raw makes an archive"),
        ("qb-volread disk.img", "", "is a volume stream, not gzip data", "qb-tarwrite and a compressor"),
        ("tar -c list", "", "is a tar archive, not gzip data", "compress it, or give --compression none"),
        ("tar -c list | zstd -c", "", "is zstd data, not gzip data", "give --compression zstd"),
        ("tar -c list | gzip -c", "--compression xz", "is gzip data, not xz data", "give --compression gzip"),
        ("cat disk.img", "--compression none", "is not a tar archive", "qb-tarwrite --raw makes an archive"),
        ("true", "", "is empty: did the program before fail?", ""),
    ],
)
def test_something_else(before: str, options: str, line: str, hint: str, folder: Path) -> None:
    status, data, said = sealed(folder, before, options)
    assert (status, said[0]) == (4, f"qb-seal: error: standard input {line}")
    assert not opens(folder, data)
    assert "".join(said[1:]).startswith(f"hint: {hint}" if hint else "")
    status, data, said = sealed(folder, before, f"{options} --opaque")
    assert (status, said) == (0, []) and opens(folder, data)


def test_a_command_that_ends_well(folder: Path) -> None:
    """Its status does not include a program that it does not watch."""
    cmd = "(qb-volread none || true) | (qb-tarwrite vm1/a || true) | gzip -c"
    for options, status in (("", 4), ("--opaque", 0)):
        done = bash(
            f"cd {folder} && qb-seal --logn 10 --passphrase-file passphrase {options} --from-command '{cmd}' list"
            " 2>said"
        )
        assert done.returncode == status
    # A command that fails is what failed, whatever it printed.
    done = bash(f"cd {folder} && qb-seal --logn 10 --passphrase-file passphrase --from-command 'echo x; exit 7' list")
    assert (done.returncode, done.stderr) == (1, b"qb-seal: error: vm1/a: the command ended with status 7\n")


WRONG = {
    "qb-tarwrite a": "a volume stream",
    "qb-volwrite new": "a volume stream",
    "qb-tarextract": "a tar archive",
    "qb-tarextract --list": "a tar archive",
    "qb-tarextract --volumes vm1 a=new": "a tar archive",
    "qb-unseal --list": "a sealed archive",
    "qb-unseal --structure": "a sealed archive",
    "qb-header read -": "a sealed archive",
    "qb-store new": "a sealed archive",
}
INPUTS = {
    "gzip data": ("echo x | gzip", "decompress it first: qb-decompress gzip"),
    "xz data": ("echo x | xz", "decompress it first: qb-decompress xz"),
    "zstd data": ("echo x | zstd", "decompress it first: qb-decompress zstd"),
    "bzip2 data": ("echo x | bzip2", "decompress it first: qb-decompress bzip2"),
    "a qcow2 image": (r"printf 'QFI\373%0600d' 0", "qb-volread qcow2:FILE reads the disk in it"),
    "a volume stream": ("qb-volread disk.img", "qb-tarwrite and qb-volwrite read it"),
    "a tar archive": ("tar -c disk.img", "qb-tarextract reads it"),
    "a sealed archive": ("cat a.qb", "qb-unseal reads it"),
}


@pytest.fixture(scope="module")
def archive(folder: Path) -> Path:
    whole = "qb-volread disk.img | qb-tarwrite vm1/a | gzip -c"
    done = bash(f"cd {folder} && {whole} | qb-seal --logn 10 --passphrase-file passphrase vm1/a >a.qb")
    assert done.returncode == 0
    for kind, (text, _hint) in INPUTS.items():
        done = bash(f"cd {folder} && {text} >'{kind}'")
        assert done.returncode == 0
    return folder


# What a program has for its input is found by one function: all of it for one program of each kind.
ALL_INPUTS = ("qb-tarwrite a", "qb-tarextract", "qb-unseal --structure")
SOME_INPUTS = ("xz data", "a volume stream", "a tar archive", "a sealed archive")


@pytest.mark.parametrize("command", WRONG)
def test_the_input_of_another_stage(command: str, archive: Path) -> None:
    program, wanted = command.split()[0], WRONG[command]
    secret = "QB_PASSPHRASE_FILE=passphrase"
    for kind, (_text, hint) in INPUTS.items():
        if kind == wanted:
            continue
        if command not in ALL_INPUTS and kind not in SOME_INPUTS:
            continue
        done = bash(f"cd {archive} && env {secret} {command} <'{kind}' >/dev/null")
        lines = done.stderr.decode().splitlines()
        assert (done.returncode, len(lines)) == (4, 2), kind
        assert lines[0].startswith(f"{program}: error: ") and lines[0].endswith(f" is {kind}, not {wanted}")
        assert lines[1] == f"hint: {hint}"
        assert not (archive / "new").exists()
    done = bash(f"cd {archive} && true | env {secret} {command}")
    assert done.returncode == 4
    assert done.stderr.decode().endswith(" is empty: did the program before fail?\n")


def test_a_plain_image_instead_of_a_stream(folder: Path) -> None:
    for program in ("qb-tarwrite", "qb-volwrite"):
        done = bash(f"cd {folder} && {program} new <disk.img >/dev/null")
        lines = f"{program}: error: standard input is not a volume stream\nhint: --raw takes a plain image\n"
        assert (done.returncode, done.stderr.decode()) == (4, lines)


def test_a_plain_image_where_no_option_takes_it(folder: Path) -> None:
    for command in ("qb-delta <disk.img", "qb-merge disk.img"):
        done = bash(f"cd {folder} && {command} >/dev/null")
        assert done.returncode == 4
        assert done.stderr.endswith(b" is not a volume stream\nhint: qb-volread makes a volume stream of an image\n")


IMAGES = ("a boot sector", "zeros and then a file system", "a text")


@pytest.mark.parametrize(
    ("command", "image"),
    [
        (command, image)
        for command in WRONG
        if WRONG[command] != "a volume stream"
        for image in (IMAGES if command in ALL_INPUTS else IMAGES[:1])
    ],
)
def test_a_plain_image_instead_of_an_archive(command: str, image: str, folder: Path, tmp_path: Path) -> None:
    """It is no archive at all: so there is nothing to say about a number in a header of tar."""
    data = {"a boot sector": b"\xeb\x63" + bytes(508) + b"\x55\xaa", "a text": b"Dear reader,\n" * 50}
    (tmp_path / "image").write_bytes(data.get(image, bytes(1024) + bytes(range(1, 256)) * 8) + bytes(5000))
    secret = "QB_PASSPHRASE_FILE=passphrase"
    done = bash(f"cd {folder} && env {secret} {command} <{tmp_path}/image >/dev/null")
    name = "standard input" if "tarextract" in command else "the archive"
    line = f"{command.split()[0]}: error: {name} is not {WRONG[command]}\n"
    assert (done.returncode, done.stderr.decode()) == (4, line)


def test_a_file_of_another_compression(folder: Path) -> None:
    done = bash(f"cd {folder} && echo x | zstd >x.zst && qb-decompress gzip <x.zst")
    assert done.returncode == 4
    assert done.stderr.endswith(b"\nhint: standard input is zstd data: qb-decompress zstd\n")
    done = bash(f"cd {folder} && echo x | gzip | head -c 15 >x.gz && qb-decompress gzip <x.gz")
    assert done.returncode == 4 and b"hint" not in done.stderr


def test_an_archive_for_a_name(archive: Path) -> None:
    """`qb-unseal FILE`, which a user may expect to work."""
    listed = f"cd {archive} && qb-unseal --passphrase-file passphrase"
    done = bash(f"{listed} a.qb </dev/null")
    assert (done.returncode, done.stdout) == (0, bash(f"{listed} --list <a.qb").stdout)
    assert done.stdout.startswith(b"vm1/a\t1\t")
    # From a pipe it is a name, and so it is with another file.
    for text in ("a.qb <a.qb", "a.qb < <(cat a.qb)", "disk.img </dev/null"):
        assert bash(f"{listed} {text}").returncode == 4
