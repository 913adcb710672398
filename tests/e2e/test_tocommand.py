"""qb-unseal --to-command: the input of CMD, a CMD that fails, one that stops reading, an archive that ends early."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from running import wait_until
from support import bash, environment, run
from zeros import archive_of_zeros

SIZES = {"vm1/a": 100, "vm1/b": 3_000_000, "vm2/c": 0}
"""b is more than a pipe holds."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of the files in SIZES; `passphrase` beside it."""
    return archive_of_zeros(tmp_path_factory.mktemp("tocommand"), SIZES, "--compression zstd")


def unseal(archive: Path, cmd: str, *words: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    secret = f"--passphrase-file={archive.parent}/passphrase"
    return run("qb-unseal", secret, "--to-command", cmd, *words, data=archive.read_bytes() if data is None else data)


def test_every_file_in_order(archive: Path) -> None:
    done = unseal(archive, 'printf "%s %s\\n" "$QB_NAME" "$(wc -c)"')
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == "".join(f"{name} {size}\n" for name, size in SIZES.items())


def test_only_the_files_that_are_named(archive: Path) -> None:
    done = unseal(archive, 'printf "%s %s\\n" "$QB_NAME" "$(wc -c)"', "vm2/c", "vm1/a")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"vm1/a 100\nvm2/c 0\n", b"")


def test_a_file_that_is_not_there(archive: Path) -> None:
    done = unseal(archive, "echo $QB_NAME", "vm1/a", "vm1/none")
    assert (done.returncode, done.stdout) == (4, b"vm1/a\n")
    assert done.stderr == b"qb-unseal: error: vm1/none is not in the archive\nhint: qb-unseal --list says what is\n"


def test_what_a_command_finds(archive: Path) -> None:
    """Names of authenticated things, pipefail, no terminal, stdout as ours."""
    tty = "(: </dev/tty) 2>/dev/null || echo no"
    cmd = f"cat >/dev/null; echo $QB_BACKUP_ID $QB_COMPRESSION; set -o | grep pipefail; {tty}"
    done = unseal(archive, cmd, "vm1/a")
    assert (done.returncode, done.stderr) == (0, b"")
    said = run("qb-header", "read", f"--passphrase-file={archive.parent}/passphrase", archive).stdout.decode()
    backup_id = dict(line.split("=") for line in said.splitlines())["backup-id"]
    assert done.stdout.decode().split() == [backup_id, "zstd", "pipefail", "on", "no"]


@pytest.mark.parametrize("options", [(), ("--verify",)])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("cat >/dev/null; exit 3", "the command ended with status 3"),
        ("exit 3", "the command ended with status 3"),
        ("head -c 100000 >/dev/null; exit 3", "the command ended with status 3"),
        ("cat | (cat >/dev/null; exit 9) | cat", "the command stage 2 of 3 ended with status 9"),
        ("kill -KILL $$", "the command was killed by SIGKILL"),
        ("no-such-program", "the command ended with status 127"),
    ],
)
def test_a_command_that_fails_for_the_second_of_three(
    fault: str, words: str, options: tuple[str, ...], archive: Path
) -> None:
    done = unseal(
        archive, f'echo "$QB_NAME"; if [ "$QB_NAME" = vm1/b ]; then {fault}; else cat >/dev/null; fi', *options
    )
    assert (done.returncode, done.stdout) == (1, b"vm1/a\nvm1/b\n")
    assert done.stderr.decode().splitlines()[-1] == f"qb-unseal: error: vm1/b: {words}"


@pytest.mark.parametrize(
    ("name", "early"),
    [
        ("vm1/a", ":"),
        ("vm1/a", "head -c 10 >/dev/null"),
        ("vm1/b", ":"),
        ("vm1/b", "head -c 10 >/dev/null"),
        ("vm1/b", "exec <&-; sleep 0.1"),
        ("vm1/b", "cat | head -c 10 >/dev/null; true"),
    ],
)
def test_a_command_that_does_not_want_the_rest(name: str, early: str, archive: Path) -> None:
    """This is not a failure: the rest of the file is skipped, and the others are read."""
    cmd = f'echo "$QB_NAME"; if [ "$QB_NAME" = {name} ]; then {early}; else cat >/dev/null; fi'
    done = unseal(archive, cmd)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"vm1/a\nvm1/b\nvm2/c\n", b"")
    done = unseal(archive, cmd, "--verify")
    assert done.returncode == 1
    assert done.stderr.decode() == f"qb-unseal: error: {name}: the command did not read all of it\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_output_that_is_closed(closed: str, archive: Path) -> None:
    """The command finds it closed for writing, as if it ran alone."""
    words = f"cd {archive.parent} && qb-unseal --passphrase-file passphrase --to-command"
    count = f"'wc -c >>{archive.parent}/counted'"
    assert bash(f'timeout 60 bash -c "{words} {count} vm1/a vm1/b <{archive} {closed}"').returncode == 0
    assert (archive.parent / "counted").read_text().split() == ["100", "3000000"]
    (archive.parent / "counted").unlink()
    assert (
        bash(
            f"timeout 60 bash -c \"{words} 'cat >/dev/null; echo x && echo y >&2' vm1/a <{archive} {closed}\""
        ).returncode
        == 1
    )


def test_a_file_without_content_need_not_be_read(archive: Path) -> None:
    done = unseal(archive, '[ "$QB_NAME" = vm2/c ] || cat >/dev/null', "--verify")
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_rest_of_what_is_not_wanted_is_not_opened(archive: Path) -> None:
    """But unopened files are still compared with the manifest."""
    data = bytearray(archive.read_bytes())
    body = data.index(b"vm1/b.011.enc") + 512
    data[body + 1000] ^= 1
    done = unseal(archive, "[ $QB_NAME = vm1/b ] || cat >/dev/null", data=bytes(data))
    assert (done.returncode, done.stderr) == (0, b"")
    data[body + 96 + SIZES["vm1/b"] - 11 * 262_144] ^= 1  # the last MAC, which the manifest binds
    done = unseal(archive, "[ $QB_NAME = vm1/b ] || cat >/dev/null", data=bytes(data))
    assert done.returncode == 4
    assert done.stderr == b"qb-unseal: error: vm1/b is not the file that the manifest lists\n"


@pytest.mark.parametrize("cmd", ["cat >$QB_OUT", "cat | cat >$QB_OUT", "trap : TERM; cat >$QB_OUT"])
@pytest.mark.parametrize("cut", [1_000_000, -1000])
def test_an_archive_that_ends_early_never_looks_like_the_end_of_a_file(
    cmd: str, cut: int, archive: Path, tmp_path: Path
) -> None:
    secret = f"--passphrase-file={archive.parent}/passphrase"
    cmd = f"{cmd} && mv $QB_OUT $QB_OUT.whole"
    done = run(
        "qb-unseal",
        secret,
        "--to-command",
        cmd,
        "vm1/b",
        data=archive.read_bytes()[: archive.read_bytes().index(b"vm2/c.000.enc") if cut < 0 else cut],
        QB_OUT=str(tmp_path / "out"),
    )
    assert done.returncode == 4
    # If the cut is after it, the file itself is complete, and a complete file may be returned.
    assert (tmp_path / "out.whole").exists() == (cut < 0)


def test_the_command_of_a_named_file_starts_before_its_first_chunk_came(archive: Path, tmp_path: Path) -> None:
    data = archive.read_bytes()
    middle = data.index(b"vm1/b.000.enc") + 1000
    cmd = f": >{tmp_path}/started; wc -c"
    argv = ["qb-unseal", f"--passphrase-file={archive.parent}/passphrase", "--to-command", cmd, "vm1/b"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()) as stage:
        assert stage.stdin is not None
        stage.stdin.write(data[:middle])
        stage.stdin.flush()
        wait_until((tmp_path / "started").exists, "the start of CMD")
        said, _none = stage.communicate(data[middle:])
    assert (stage.returncode, said) == (0, b"3000000\n")


def test_no_command_starts_for_a_name_that_is_not_authenticated(archive: Path) -> None:
    """Unless the user gave that name; then CMD gets no byte, and not its end."""
    data = archive.read_bytes().replace(b"vm1/b.", b"vn0/b.")  # the same checksum
    done = unseal(archive, "echo $QB_NAME; cat", data=data)
    assert (done.returncode, done.stdout) == (4, b"vm1/a\n" + bytes(SIZES["vm1/a"]))
    done = unseal(archive, "cat; echo whole", "vn0/b", data=data)
    assert (done.returncode, done.stdout) == (4, b"")
    assert done.stderr == b"qb-unseal: error: vn0/b.000.enc does not authenticate: the archive is damaged here\n"


def test_a_damaged_chunk_never_looks_like_the_end_of_a_file(archive: Path, tmp_path: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[data.index(b"vm1/b.011.enc") + 700] ^= 1
    done = run(
        "qb-unseal",
        f"--passphrase-file={archive.parent}/passphrase",
        "--to-command",
        "cat >$QB_OUT && mv $QB_OUT $QB_OUT.whole",
        "vm1/b",
        data=bytes(data),
        QB_OUT=str(tmp_path / "out"),
    )
    assert done.returncode == 4
    assert done.stderr == b"qb-unseal: error: vm1/b.011.enc does not authenticate: the archive is damaged here\n"
    assert (tmp_path / "out").stat().st_size == 11 * 262_144
    assert not (tmp_path / "out.whole").exists()
