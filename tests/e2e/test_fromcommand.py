"""qb-seal --from-command: the input of CMD, what is sealed, and what is not sealed if CMD fails."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, run


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "passphrase").write_text("from command\n")
    (tmp_path / "passphrase").chmod(0o600)
    return tmp_path


def seal(place: Path, cmd: str, entries: str | bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    """entries: a list without its end line, or with a wrong one; bytes are given as they are."""
    data = f"{entries}end\n".encode() if isinstance(entries, str) else entries
    secret = f"--passphrase-file={place}/passphrase"
    return run("qb-seal", "--opaque", "--logn", "10", secret, *options, "--from-command", cmd, "-", data=data)


def unseal(place: Path, archive: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
    return run("qb-unseal", f"--passphrase-file={place}/passphrase", *words, data=archive)


def listed(place: Path, archive: bytes) -> list[list[str]]:
    done = unseal(place, archive, "--list")
    assert (done.returncode, done.stderr) == (0, b"")
    return [line.split("\t") for line in done.stdout.decode().splitlines()]


def test_each_line_is_a_file_in_this_order(place: Path) -> None:
    done = seal(place, 'printf "%s from %s" "$QB_NAME" "$QB_SOURCE"', "vm2/a\tx\nvm1/b\ty\nz\t/dev/null\n")
    assert (done.returncode, done.stderr) == (0, b"")
    assert [name for name, _, _ in listed(place, done.stdout)] == ["vm2/a", "vm1/b", "z"]
    assert unseal(place, done.stdout, "vm1/b").stdout == b"vm1/b from y"


def test_a_source_is_never_shell_text(place: Path) -> None:
    source = ' \'"; touch $QB_WITNESS; $(touch "$QB_WITNESS") `touch $QB_WITNESS` \\ \t * -rf \x1b ä\udcff '
    done = run(
        "qb-seal",
        "--opaque",
        "--logn=10",
        f"--passphrase-file={place}/passphrase",
        "--from-command",
        'printf %s "$QB_SOURCE"',
        "-",
        data=f"a\t{source}\nend\n".encode("utf-8", "surrogateescape"),
        QB_WITNESS=str(place / "witness"),
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert unseal(place, done.stdout, "a").stdout == source.encode("utf-8", "surrogateescape")
    assert not (place / "witness").exists()


def test_what_a_command_finds(place: Path) -> None:
    """/dev/null as stdin, pipefail, no terminal, our stderr."""
    cmd = "cat; set -o | grep pipefail; (: </dev/tty) 2>/dev/null || echo no; echo said >&2; readlink /proc/$$/fd/0"
    done = seal(place, cmd, "a\tx\n")
    assert (done.returncode, done.stderr) == (0, b"said\n")
    assert unseal(place, done.stdout, "a").stdout.split() == [b"pipefail", b"on", b"no", b"/dev/null"]


def test_the_list_is_a_file(place: Path) -> None:
    (place / "list").write_text("a\tx\nend\n")
    secret = f"--passphrase-file={place}/passphrase"
    done = run(
        "qb-seal", "--opaque", "--logn=10", secret, "--from-command", "echo data", place / "list", data=b"not read"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert unseal(place, done.stdout, "a").stdout == b"data\n"
    done = run("qb-seal", "--opaque", "--logn=10", secret, "--from-command", "echo data", place / "none")
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.endswith(b"none: No such file or directory\n")


@pytest.mark.parametrize(("size", "chunks"), [(0, 1), (999, 1), (1000, 2), (2000, 3), (2001, 3)])
def test_chunks_of_a_command(size: int, chunks: int, place: Path) -> None:
    done = seal(place, 'head -c "$QB_SOURCE" /dev/zero', f"a\t{size}\nb\t{size}\n", "--chunk-size=1000")
    assert done.returncode == 0
    assert listed(place, done.stdout) == [["a", str(chunks), str(size)], ["b", str(chunks), str(size)]]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("false", "the command ended with status 1"),
        ("(exit 7) | cat", "the command stage 1 of 2 ended with status 7"),
        ("kill -KILL $$", "the command was killed by SIGKILL"),
        ("cat no-such-file | cat | cat", "the command stage 1 of 3 ended with status 1"),
        ("no-such-program", "the command ended with status 127"),
    ],
)
@pytest.mark.parametrize("size", [0, 2500])
def test_a_command_that_fails_for_the_second_of_three(fault: str, words: str, size: int, place: Path) -> None:
    """Its last chunk is not written, nor any manifest; the file is named."""
    cmd = f'head -c {size} /dev/zero; if [ "$QB_NAME" = vm1/b ]; then {fault}; fi'
    done = seal(place, cmd, "vm1/a\tx\nvm1/b\tx\nvm1/c\tx\n", "--chunk-size=1000", "--record", str(place / "records"))
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1] == f"qb-seal: error: vm1/b: {words}"
    members = subprocess.run(["tar", "-t"], input=done.stdout, capture_output=True, check=False).stdout.decode().split()
    assert members == [
        "backup-header",
        "backup-header.hmac",
        *(f"vm1/a.00{number}.enc" for number in range(size // 1000 + 1)),
        *(f"vm1/b.00{number}.enc" for number in range(size // 1000)),
    ]
    assert [line.split()[-1] for line in (place / "records").read_text().splitlines()] == ["vm1/a"]
    checked = unseal(place, done.stdout, "--verify")
    assert (checked.returncode, checked.stdout) == (4, b"")
    opened = unseal(place, done.stdout, "vm1/b")
    assert opened.returncode == 4


def test_records_are_for_their_owner_alone(place: Path, tmp_path: Path) -> None:
    done = seal(place, "true", "a\tx\n", "--record", str(tmp_path / "records"))
    assert done.returncode == 0
    assert (tmp_path / "records").stat().st_mode & 0o777 == 0o600


def test_a_command_that_was_cut_by_a_full_chunk_is_noticed_too(place: Path) -> None:
    """Exactly one chunk was written, so only the empty last chunk is missing."""
    done = seal(place, "head -c 1000 /dev/zero; false", "a\tx\n", "--chunk-size=1000")
    assert done.returncode == 1
    opened = unseal(place, done.stdout, "--verify")
    assert (opened.returncode, opened.stderr) == (
        4,
        b"qb-unseal: error: a is incomplete: its chunk 001 is missing\n",
    )


@pytest.mark.parametrize(
    ("entries", "status", "message"),
    [
        ("", 4, "the list is empty"),
        (b"a\tx", 4, "line 1 of the list has no newline"),
        (b"", 4, "the list ends without its line end"),
        (b"a\tx\n", 4, "the list ends without its line end"),
        (b"a\tx\nend", 4, "line 2 of the list has no newline"),
        (b"a\tx\nend\nb\tx\n", 4, "something follows the end of the list"),
        (b"a\tinline:5\nend\n1234", 4, "the list ends before the content of a"),
        (b"a\tinline:99999999\nend\n1234", 5, "the contents in the list have more than 64 MiB"),
        ("a\tx\n\n", 4, "line 2 of the list: not a name, a tab, a source"),
        ("a\n", 4, "line 1 of the list: not a name, a tab, a source"),
        ("a\t\n", 4, "line 1 of the list: not a name, a tab, a source"),
        ("a x\n", 4, "line 1 of the list: not a name, a tab, a source"),
        (b"a\tx\0y\nend\n", 4, "line 1 of the list: not a name, a tab, a source"),
        ("../a\tx\n", 4, "line 1 of the list: not a relative path of letters, digits and _ . @ + -"),
        ("/a\tx\n", 4, "line 1 of the list: not a relative path of letters, digits and _ . @ + -"),
        ("a b\tx\n", 4, "line 1 of the list: not a relative path of letters, digits and _ . @ + -"),
        ("qb-manifest\tx\n", 4, "line 1 of the list: a reserved name"),
        ("a\tx\na\ty\n", 5, "line 2 of the list: a occurs twice"),
        ("a\tx\nqubes.xml\ty\n", 5, "line 2 of the list: qubes.xml is not the first file"),
        (
            "vm1/a\tx\nvm2/a\tx\nvm1/b\tx\n",
            5,
            "line 3 of the list: vm1/b comes back to the directory vm1 after another one",
        ),
    ],
)
def test_a_list_that_is_not_taken(entries: str | bytes, status: int, message: str, place: Path) -> None:
    """No command is run, and nothing is written."""
    done = seal(place, f"touch {place}/ran", entries)
    assert (done.returncode, done.stdout) == (status, b"")
    assert done.stderr.decode().splitlines()[0] == f"qb-seal: error: {message}"
    assert not (place / "ran").exists()


def test_late_sources_and_contents_after_the_list(place: Path) -> None:
    data = b"qubes.xml\tinline:8\nvm1/a\t?\nvm1/b\tinline:0\nvm1/c\t?\nend\n<qubes/>vm1/a\tone\nvm1/c\ttwo\n"
    done = seal(place, 'printf "%s " "$QB_SOURCE"; cat', data)
    assert (done.returncode, done.stderr) == (0, b"")
    shown = {name: unseal(place, done.stdout, name).stdout for name, _, _ in listed(place, done.stdout)}
    assert shown == {"qubes.xml": b"inline:8 <qubes/>", "vm1/a": b"one ", "vm1/b": b"inline:0 ", "vm1/c": b"two "}


@pytest.mark.parametrize(
    ("late", "message"),
    [
        (b"", "the list ends where the source of vm1/a is due"),
        (b"vm1/b\tx\n", "the list has a source for vm1/b where that of vm1/a is due"),
        (b"vm1/a\t?\n", "the list has a source for vm1/a where that of vm1/a is due"),
        (b"vm1/a\tx", "the source of vm1/a has no newline"),
        (b"end\n", "the source of vm1/a: not a name, a tab, a source"),
    ],
)
def test_a_source_that_is_missing(late: bytes, message: str, place: Path) -> None:
    done = seal(place, "touch ran; echo x", b"vm1/a\t?\nend\n" + late)
    assert done.returncode == 4
    assert done.stderr.decode().splitlines()[0] == f"qb-seal: error: {message}"
    assert unseal(place, done.stdout, "--verify").returncode == 4


def test_what_is_reported_of_each_file(place: Path) -> None:
    done = seal(place, 'printf x; [ "$QB_NAME" != b ]', "a\tx\nb\tx\n", "--report", str(place / "report"))
    assert done.returncode == 1
    told = [json.loads(line) for line in (place / "report").read_text().splitlines()]
    assert sorted((one["event"], one["name"]) for one in told) == [
        *(("begin", "a"), ("begin", "b"), ("read", "a"), ("sealed", "a")),
    ]


@pytest.mark.parametrize("cmd", ["", " ", "\n"])
def test_an_empty_command_is_refused(cmd: str, place: Path) -> None:
    done = seal(place, cmd, "a\tx\n")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"qb-seal: error: --from-command: the command is empty\n"


@pytest.mark.parametrize(("status", "passed_on"), [(1, 1), (2, 1), (3, 3), (4, 4), (5, 5)])
def test_the_status_that_a_stage_of_ours_has_reported(status: int, passed_on: int, place: Path) -> None:
    """And only that: the same status of another program is an ordinary failure."""
    tell = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from qbtools import reports;"
        "reports.tell(reports.inherited(os.environ), program='qb-volread', status=int(sys.argv[2]))"
    )
    done = seal(place, f"{sys.executable} -c {shlex.quote(tell)} {ROOT} {status}; exit {status}", "a\tx\n")
    assert (done.returncode, done.stderr) == (passed_on, b"")
    done = seal(place, f"exit {status}", "a\tx\n")
    assert done.returncode == 1 and done.stderr.endswith(b"the command ended with status %d\n" % status)


def test_one_failure_is_one_line(place: Path) -> None:
    """The stage that failed prints it; the stages after it only see its end."""
    cmd = 'qb-volread "$QB_SOURCE" | qb-tarwrite "$QB_NAME" | gzip'
    done = seal(place, cmd, f"a\t{place}/none\n")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith(b"qb-volread: error: ")


def test_a_stage_that_only_met_the_end_is_shown_if_no_other_reported(place: Path) -> None:
    done = seal(place, "true | qb-tarwrite a | gzip", "a\tx\n")
    assert (done.returncode, done.stderr) == (
        4,
        b"qb-seal: error: a: qb-tarwrite: standard input is empty: did the program before fail?\n",
    )
    done = seal(place, "(exit 3) | qb-tarwrite a | gzip", "a\tx\n")
    assert done.returncode == 1
    assert done.stderr == b"qb-seal: error: a: the command stage 1 of 3 ended with status 3\n"


def test_metadata_that_is_too_large_is_refused(place: Path) -> None:
    done = seal(place, "head -c 1100000 /dev/zero", "qubes.xml\tx\n")
    assert done.returncode == 5
    assert b"qubes.xml has more than 1048448 bytes" in done.stderr
    assert unseal(place, done.stdout, "--verify").returncode == 4


def test_many_small_files_through_both(place: Path) -> None:
    """One command for each file, with fewer descriptors than files: none stays open."""
    entries = "".join(f"vm{number // 50}/v{number:03d}\tcontent of {number}\n" for number in range(120))
    few = ("bash", "-c", 'ulimit -n 64 && exec "$@"', "-")
    words = ("--logn=10", "--opaque", f"--passphrase-file={place}/passphrase", "--from-command")
    done = run(*few, "qb-seal", *words, 'printf "%s" "$QB_SOURCE"', "-", data=f"{entries}end\n".encode())
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(listed(place, done.stdout)) == 120
    words = (f"--passphrase-file={place}/passphrase", "--to-command", 'read -r text; printf "$QB_NAME\t$text\n"')
    back = run(*few, "qb-unseal", *words, data=done.stdout)
    assert (back.returncode, back.stderr) == (0, b"")
    assert back.stdout.decode() == entries


# --- going on without a file that fails ---

SOME_FAIL = "head -c 150000 /dev/zero; exit $QB_SOURCE"
THREE = "vm1/a\t0\nvm1/b\t7\nvm2/c\t0\n"
LOST = "the archive is complete but for 1 file that failed when saved: vm1/b"


def going_on(place: Path, cmd: str = SOME_FAIL, entries: str = THREE) -> subprocess.CompletedProcess[bytes]:
    return seal(place, cmd, entries, "--keep-going", "--chunk-size=64K")


def test_going_on_without_a_file(place: Path) -> None:
    """Two of its chunks exist, its last one does not, and the manifest says so."""
    done = going_on(place)
    assert (done.returncode, done.stderr) == (
        1,
        b"qb-seal: warning: vm1/b: the command ended with status 7: going on without it\n",
    )
    listing = unseal(place, done.stdout, "--list")
    assert (listing.returncode, listing.stderr.decode()) == (0, f"qb-unseal: warning: {LOST}\n")
    assert listing.stdout.decode().splitlines() == ["vm1/a\t3\t150000", "vm2/c\t3\t150000"]
    assert json.loads(unseal(place, done.stdout, "--list", "--json").stdout)["failed"] == ["vm1/b"]
    assert b"vm1/b.001.enc" in done.stdout and b"vm1/b.002.enc" not in done.stdout
    for words in (("--verify",), ("vm1/b",), ("--to-command", "cat >/dev/null")):
        read = unseal(place, done.stdout, *words)
        assert (read.returncode, read.stderr.decode()) == (4, f"qb-unseal: error: {LOST}\n"), words
    for words in (("vm2/c",), ("--to-command", "cat", "vm2/c")):
        read = unseal(place, done.stdout, *words)
        assert (read.returncode, read.stdout) == (0, bytes(150000)), words
        assert read.stderr.decode() == f"qb-unseal: warning: {LOST}\n"
    read = run("qb-unseal", "--structure", data=done.stdout)
    assert (read.returncode, read.stderr) == (
        0,
        b"qb-unseal: warning: vm1/b is incomplete: it failed when it was saved, or chunks are missing\n",
    )
    stored = run("qb-store", "-v", place / "stored.qb", data=done.stdout)
    assert stored.stderr.splitlines(True)[0] == read.stderr.replace(b"qb-unseal: warning", b"qb-store")


def test_the_command_of_a_file_that_failed_sees_no_end(place: Path) -> None:
    """It is killed, and the commands of the other files get all of their data."""
    done = going_on(place)
    cmd = f"wc -c >{place}/${{QB_NAME##*/}}.new && mv {place}/${{QB_NAME##*/}}.new {place}/${{QB_NAME##*/}}"
    read = unseal(place, done.stdout, "--to-command", cmd)
    assert (read.returncode, read.stderr.decode()) == (4, f"qb-unseal: error: {LOST}\n")
    assert (place / "a").read_text() == (place / "c").read_text() == "150000\n"
    assert not (place / "b").exists()


def test_a_chunk_that_is_missing_is_no_file_that_failed(place: Path) -> None:
    """Only what the manifest names may be incomplete."""
    whole = going_on(place, "head -c 150000 /dev/zero", THREE).stdout
    begin, end = whole.index(b"vm1/b.002.enc"), whole.index(b"vm2/c.000.enc")
    for words in (("--verify",), ("--list",), ("vm2/c",)):
        read = unseal(place, whole[:begin] + whole[end:], *words)
        assert read.returncode == 4
        assert read.stderr == b"qb-unseal: error: vm1/b is incomplete: its chunk 002 is missing\n"


def test_without_metadata_or_any_file_there_is_no_archive(place: Path) -> None:
    done = going_on(place, entries="qubes.xml\t7\nvm1/a\t0\n")
    assert done.returncode == 1 and b"qb-manifest" not in done.stdout
    assert done.stderr == b"qb-seal: error: qubes.xml: the command ended with status 7\n"
    done = going_on(place, entries="qubes.xml\t0\nvm1/a\t7\n")
    assert done.returncode == 1 and b"qb-manifest" not in done.stdout
    assert done.stderr.endswith(b"qb-seal: error: all files have failed: the archive is not completed\n")


def test_a_source_that_cannot_be_given(place: Path) -> None:
    entries = b"vm1/a\t0\nvm1/b\t?\nvm2/c\t0\nend\nvm1/b\t!\n"
    done = seal(place, SOME_FAIL, entries, "--keep-going", "--chunk-size=64K", f"--report={place}/report")
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"vm1/b.000.enc" not in done.stdout
    events = [json.loads(line) for line in (place / "report").read_text().splitlines()]
    assert [(one["event"], one["name"]) for one in events if one["event"] in ("failed", "complete")] == [
        *(("failed", "vm1/b"), ("complete", "qb-manifest")),
    ]
    read = unseal(place, done.stdout, "--verify")
    assert (read.returncode, read.stderr.decode()) == (4, f"qb-unseal: error: {LOST}\n")


def test_records_of_files_that_failed(place: Path) -> None:
    """By hand: qb-manifest writes the records of qb-seal."""
    secret, backup_id = f"--passphrase-file={place}/passphrase", "20261124T060000-0123456789abcdef"
    common = ("--logn=10", secret, f"--backup-id={backup_id}")
    head = run("qb-header", "write", "--chunk-size=64K", *common).stdout
    sealed = seal(place, SOME_FAIL, THREE, "--keep-going", "--chunk-size=64K", common[2], f"--record={place}/records")
    assert sealed.returncode == 1
    assert f"{backup_id} failed vm1/b" in (place / "records").read_text()
    tail = run("qb-manifest", *common, str(place / "records"))
    assert (tail.returncode, tail.stderr) == (0, b"")
    read = unseal(place, head + sealed.stdout + tail.stdout, "--verify")
    assert (read.returncode, read.stderr.decode()) == (4, f"qb-unseal: error: {LOST}\n")
