"""Every source of a passphrase with every program that needs one, and the error for each unusable one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support import bash
from terminal import Terminal

SECRET = b"correct horse"
ID = "20260101T000000-0123456789abcdef"

# {o} is where the options of a source go, {check} what opens the result with the right passphrase.
SEALING = {
    "qb-seal": "echo data | qb-seal --opaque {o} --logn 10 vm1/root.img >out && {check} qb-unseal --verify <out",
    "qb-header": f"qb-header write {{o}} --logn 10 --backup-id {ID} >out && {{check}} qb-header read out",
    "qb-manifest": f"qb-manifest {{o}} --logn 10 --backup-id {ID} records >tail && cat head tail >out"
    " && {check} qb-unseal --verify <out",
    "qb-backup": "qb-backup create {o} --logn 10 -o out vm1:root=volume.img && {check} qb-unseal --verify <out",
}
OPENING = {
    "qb-unseal": "qb-unseal {o} vm1/root.img <archive >out",
    "qb-unseal --list": "qb-unseal --list {o} <archive >out",
    "qb-unseal --verify": "qb-unseal --verify {o} <archive >out",
    "qb-unseal --to-command": "qb-unseal --to-command cat {o} <archive >out",
    "qb-header": "qb-header read {o} archive >out",
    "qb-backup list": "qb-backup list {o} archive >out",
    "qb-backup verify": "qb-backup verify {o} archive >out",
    "qb-backup restore": "qb-backup restore {o} --to out archive",
}
CALLS = {**{f"{name} (sealing)": call for name, call in SEALING.items()}, **OPENING}

SOURCES = {
    "file": ("--passphrase-file secret", {}),
    "descriptor": ("--passphrase-fd 9 9< <(cat secret)", {}),
    "command": ("--passphrase-command 'cat secret'", {}),
    "variable file": ("", {"QB_PASSPHRASE_FILE": "secret"}),
    "variable command": ("", {"QB_PASSPHRASE_COMMAND": "cat secret"}),
    "systemd": ("", {"CREDENTIALS_DIRECTORY": "credentials"}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive, a volume, and the pieces for qb-manifest; all sealed with SECRET."""
    place = tmp_path_factory.mktemp("passphrases")
    (place / "right").write_bytes(SECRET)
    (place / "right").chmod(0o600)
    script = f"""
cd {place} && export QB_PASSPHRASE_FILE=right
head -c 100000 /dev/urandom >volume.img && truncate -s 1M volume.img &&
qb-backup create -q --logn 10 -o archive vm1:root=volume.img &&
qb-header write --logn 10 --backup-id {ID} >head &&
echo data | qb-seal --opaque --logn 10 --backup-id {ID} --record records vm1/root.img >>head
"""
    done = bash(script)
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials/qb-passphrase").symlink_to("../secret")
    give(tmp_path, SECRET)
    return tmp_path


def give(place: Path, secret: bytes) -> None:
    (place / "secret").write_bytes(secret)
    (place / "secret").chmod(0o600)


def call(place: Path, text: str, options: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    check = "QB_PASSPHRASE_FILE=right QB_PASSPHRASE_COMMAND= "
    return bash(f"cd {place} && " + text.format(o=options, check=check), **variables)


# Those that only read their own options, as another one does: a descriptor and the environment reach them.
ALIKE = {"qb-header (sealing)", "qb-manifest (sealing)", "qb-unseal", "qb-unseal --list", "qb-unseal --verify"}
ALIKE |= {"qb-backup list", "qb-backup verify"}  # as qb-backup restore


@pytest.mark.parametrize(
    ("name", "source"),
    [
        (name, source)
        for name in CALLS
        for source in SOURCES
        if name not in ALIKE or source in ("descriptor", "variable file")
    ],
)
def test_every_source_serves_every_program(name: str, source: str, place: Path) -> None:
    options, variables = SOURCES[source]
    done = call(place, CALLS[name], options, **variables)
    assert done.returncode == 0, done.stderr
    assert b"warning" not in done.stderr and b"error" not in done.stderr


@pytest.mark.parametrize("name", CALLS)
def test_the_terminal_serves_every_program_with_one_question(name: str, place: Path) -> None:
    text = CALLS[name].format(o="", check="QB_PASSPHRASE_FILE=right")
    with Terminal("bash", "-o", "pipefail", "-c", f"cd {place} && {text}") as terminal:
        terminal.expect(b"passphrase: ")
        assert not terminal.echoes()
        terminal.type(SECRET + b"\n")
        if "sealing" in name:
            terminal.expect(b"passphrase again: ")
            terminal.type(SECRET + b"\n")
        done = terminal.finish()
        assert terminal.echoes()
    assert done.returncode == 0, done.stderr
    assert terminal.said.count(b"passphrase") == (2 if "sealing" in name else 1)
    assert SECRET not in terminal.said


@pytest.mark.parametrize("name", SEALING)
def test_two_answers_that_differ_are_asked_for_again(name: str, place: Path) -> None:
    text = SEALING[name].format(o="", check="QB_PASSPHRASE_FILE=right")
    with Terminal("bash", "-o", "pipefail", "-c", f"cd {place} && {text}") as terminal:
        for second in (b"incorrect horse", b"", SECRET):
            for prompt, typed in ((b"passphrase: ", SECRET), (b"passphrase again: ", second)):
                terminal.expect(prompt)
                assert not terminal.echoes()
                terminal.said = b""
                terminal.type(typed + b"\n")
        done = terminal.finish()
        assert terminal.echoes()
    assert (done.returncode, b"error" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize("name", SEALING)
def test_nothing_is_sealed_where_three_times_two_answers_differ(name: str, place: Path) -> None:
    text = SEALING[name].format(o="", check="QB_PASSPHRASE_FILE=right")
    with Terminal("bash", "-o", "pipefail", "-c", f"cd {place} && {text}") as terminal:
        for _ in range(3):
            for prompt, typed in ((b"passphrase: ", SECRET), (b"passphrase again: ", SECRET.upper())):
                terminal.expect(prompt)
                terminal.said = b""
                terminal.type(typed + b"\n")
        done = terminal.finish()
    assert done.returncode == 5
    lines = [line for line in done.stderr.splitlines() if b": backup ID " not in line]
    assert len(lines) == 1 and lines[0].endswith(b": error: the two passphrases differ, 3 times")
    assert released(place / "out") == b""


# passphrase, status when sealing, when opening
BAD = {
    "another": (b"wrong horse", 0, 3),
    "empty": (b"\n", 5, 5),
    "too long": (b"x" * 1025, 5, 5),
    "not UTF-8": (b"\xff\xfe", 5, 3),
    "with a control character": (b"correct\x07horse", 5, 3),
    "with NUL": (b"correct\0horse", 5, 5),
    "with a newline": (b"correct\nhorse", 5, 5),
    "with a space at its end": (SECRET + b" ", 0, 3),
    "with a space before it": (b" " + SECRET, 0, 3),
    "in capitals": (SECRET.upper(), 0, 3),
}


# All of them with one program, some with each.
WRONG = [(name, bad) for name in OPENING for bad in BAD if name == "qb-unseal" or bad in ("another", "empty")]


@pytest.mark.parametrize(("name", "bad"), WRONG)
def test_what_is_not_the_passphrase_opens_nothing(name: str, bad: str, place: Path) -> None:
    secret, _, status = BAD[bad]
    give(place, secret)
    done = call(place, OPENING[name], "--passphrase-file secret")
    assert done.returncode == status, done.stderr
    assert done.stderr.count(b": error: ") == 1
    assert secret not in done.stderr or secret == b"\n"
    assert released(place / "out") == b""


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        (name, bad)
        for name in SEALING
        for bad in BAD
        if BAD[bad][1] and (name == "qb-seal" or bad in ("empty", "too long", "with a newline"))
    ],
)
def test_a_passphrase_that_other_programs_cannot_read_seals_nothing(name: str, bad: str, place: Path) -> None:
    give(place, BAD[bad][0])
    done = call(place, SEALING[name].partition(" && ")[0], "--passphrase-file secret")
    assert done.returncode == 5, done.stderr
    assert b": error: the passphrase " in done.stderr
    assert released(place / "out") == b""


@pytest.mark.parametrize("name", SEALING)
def test_a_space_at_the_end_is_sealed_with_a_warning_and_needed_to_open(name: str, place: Path) -> None:
    give(place, SECRET + b" ")
    done = call(place, SEALING[name].partition(" && ")[0], "--passphrase-file secret")
    assert done.returncode == 0
    assert b": warning: the passphrase ends with white space, which Qubes removes\n" in done.stderr
    if name != "qb-manifest":
        opened = f"cd {place} && qb-header read --passphrase-file"
        assert bash(f"{opened} secret out").returncode == 0
        assert bash(f"{opened} right out").returncode == 3


def released(path: Path) -> bytes:
    """The complete output of a call: the content of a file, or of the files below a directory."""
    if path.is_dir():
        return b"".join(file.read_bytes() for file in path.rglob("*") if file.is_file())
    return path.read_bytes() if path.exists() else b""
