"""qb-unseal --routes: usage, an archive in which all unwanted chunks are damaged, reports, interrupts."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from running import Running
from support import bash, run
from zeros import archive_of_zeros

from qbtools.formats import manifest
from qbtools.runs.hearing import Happened, Hearing

SIZES = {"qubes.xml": 100, "vm1/a": 600_000, "vm2/b": 300_000}
CMD = 'printf "%s %s\\n" "$QB_NAME" "$(wc -c)"'


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of the files in SIZES; `passphrase` beside it."""
    return archive_of_zeros(tmp_path_factory.mktemp("select"), SIZES)


def unseal(archive: Path, *words: str | Path, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    secret = f"--passphrase-file={archive.parent}/passphrase"
    return run("qb-unseal", secret, *words, data=archive.read_bytes() if data is None else data)


def routes(place: Path, *names: str) -> Path:
    """A file with a route for each name."""
    (place / "routes").write_text("".join(f"{name}\tfor {name}\n" for name in names) + "end\n")
    return place / "routes"


@pytest.mark.parametrize("options", [(), ("--verify",)])
def test_the_metadata_and_those_that_have_a_route(options: tuple[str, ...], archive: Path, tmp_path: Path) -> None:
    """For the others only the last MAC is read, because the manifest needs it."""
    data = bytearray(archive.read_bytes())
    for chunk in ("000", "001", "002"):
        data[data.index(f"vm1/a.{chunk}.enc".encode()) + 512 + 200] ^= 1
    words = ("--to-command", f"{CMD}; echo $QB_TARGET", "--first", CMD, "--routes")
    done = unseal(archive, *options, *words, routes(tmp_path, "vm2/b"), data=bytes(data))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"qubes.xml 100\nvm2/b 300000\nfor vm2/b\n", b"")
    done = unseal(archive, *options, *words, routes(tmp_path, "vm1/a"), data=bytes(data))
    assert (done.returncode, done.stdout) == (4, b"qubes.xml 100\n")


def test_what_is_missing_at_the_end(archive: Path, tmp_path: Path) -> None:
    done = unseal(archive, "--to-command", CMD, "--routes", routes(tmp_path, "vm2/b", "vm3/c"))
    assert (done.returncode, done.stdout) == (4, b"vm2/b 300000\n")
    assert done.stderr == b"qb-unseal: error: vm3/c is not in the archive\nhint: qb-unseal --list says what is\n"


def test_routes_that_are_cut_are_no_routes(archive: Path, tmp_path: Path) -> None:
    """A dead writer must not look like one that wants fewer files."""
    (tmp_path / "routes").write_text("vm2/b\tx\n")
    done = unseal(archive, "--to-command", CMD, "--first", CMD, "--routes", tmp_path / "routes")
    assert (done.returncode, done.stdout) == (4, b"qubes.xml 100\n")
    assert done.stderr.startswith(b"qb-unseal: error: the list of routes ends without its line end\n")


def test_metadata_that_fails_asks_for_no_routes(archive: Path, tmp_path: Path) -> None:
    done = unseal(archive, "--to-command", CMD, "--first", "exit 3", "--routes", tmp_path / "none")
    assert done.returncode == 1
    assert done.stderr == b"qb-unseal: error: qubes.xml: the command ended with status 3\n"


def test_continuing_after_a_file_that_fails(archive: Path, tmp_path: Path) -> None:
    cmd = f'{CMD}; [ "$QB_NAME" != vm1/a ]'
    done = unseal(archive, "--to-command", cmd, "--keep-going", "--routes", routes(tmp_path, "vm1/a", "vm2/b"))
    assert (done.returncode, done.stdout) == (1, b"vm1/a 600000\nvm2/b 300000\n")
    assert done.stderr == b"qb-unseal: warning: vm1/a: the command ended with status 1: going on without it\n"
    done = unseal(archive, "--to-command", cmd, "--routes", routes(tmp_path, "vm1/a", "vm2/b"))
    assert (done.returncode, done.stdout) == (1, b"vm1/a 600000\n")


def test_going_on_does_not_pass_over_damage(archive: Path, tmp_path: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[data.index(b"vm1/a.001.enc") + 512 + 200] ^= 1
    words = ("--to-command", CMD, "--keep-going", "--routes", routes(tmp_path, "vm1/a", "vm2/b"))
    assert unseal(archive, *words, data=bytes(data)).returncode == 4


def test_what_is_reported(archive: Path, tmp_path: Path) -> None:
    """What each CMD prints goes into the report, not to standard output."""
    cmd = f'{CMD}; echo "$QB_TARGET"'
    words = ("--first", 'printf "one\\ntwo"', "--report", tmp_path / "report")
    done = unseal(archive, "--to-command", cmd, *words, "--routes", routes(tmp_path, "vm2/b"))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    opened, *rest, ended = (
        event for event in Hearing().take((tmp_path / "report").read_bytes()) if isinstance(event, Happened)
    )
    assert opened.event == "opened" and opened.backup_id
    assert [event for event in rest if event.event != "record"] == [
        Happened("begin", "qubes.xml"),
        Happened("done", "qubes.xml", b"one\ntwo"),
        Happened("passed", "vm1/a"),
        Happened("begin", "vm2/b"),
        Happened("done", "vm2/b", b"vm2/b 300000\nfor vm2/b\n"),
    ]
    records = [event for event in rest if event.event == "record"]
    assert [event.line.split()[-1] for event in records] == [event.name for event in records] == [*SIZES]
    receipt = tmp_path / "receipt"
    assert run("qb-unseal", "--structure", "--receipt", receipt, data=archive.read_bytes()).returncode == 0
    assert f"\nmanifest {ended.digest}\n" in receipt.read_text()
    lines = "".join(f"{event.line}\n" for event in records)
    text = f"qb-manifest 1\nbackup-id {opened.backup_id}\n{lines}end {len(records)}\n"
    assert manifest.serialise(*manifest.parse(text.encode())).decode() == text


def test_a_file_without_its_last_chunk_is_reported(archive: Path, tmp_path: Path) -> None:
    """Before the end of the archive it is not known whether that is damage."""
    data = archive.read_bytes()
    at = data.index(b"vm1/a.001.enc")
    data = data[:at] + data[data.index(b"vm2/b.000.enc") :]
    words = ("--to-command", "cat >/dev/null", "--routes", routes(tmp_path, "vm1/a", "vm2/b"), "--report")
    assert unseal(archive, *words, tmp_path / "report", data=data).returncode == 4
    events = [one for one in Hearing().take((tmp_path / "report").read_bytes()) if isinstance(one, Happened)]
    assert Happened("failed", "vm1/a", reason="its last chunk is missing") in events
    assert "vm1/a" not in {one.name for one in events if one.event == "record"}


def test_a_report_that_cannot_be_written(archive: Path, tmp_path: Path) -> None:
    done = unseal(archive, "--to-command", CMD, "--report", tmp_path / "none" / "report")
    assert done.returncode == 1
    assert done.stderr.startswith(b"qb-unseal: error: cannot write the report to ")


@pytest.mark.parametrize(
    "words",
    [
        ("--routes", "list"),
        ("--first", "true", "--to-command", CMD),
        ("--to-command", CMD, "--routes", "list", "vm1/a"),
        ("--list", "--routes", "list"),
        ("--verify", "--keep-going"),
    ],
)
def test_what_it_goes_with(words: tuple[str, ...], archive: Path) -> None:
    done = unseal(archive, *words)
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.parametrize("option", ["--to-command", "--first"])
def test_an_empty_command_is_refused(option: str, archive: Path, tmp_path: Path) -> None:
    words = {"--to-command": CMD, "--first": CMD, option: " "}
    done = unseal(archive, *(word for pair in words.items() for word in pair), "--routes", routes(tmp_path))
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == f"qb-unseal: error: {option}: the command is empty\n".encode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_end_while_routes_are_awaited(number: signal.Signals, archive: Path, tmp_path: Path) -> None:
    """No process stays, and no file is taken for wanted."""
    os.mkfifo(archive.parent / "fifo")
    try:
        with Running(tmp_path, archive.parent) as running:
            text = "exec qb-unseal --passphrase-file passphrase --to-command 'cat >/dev/null; echo $QB_NAME'"
            process = running.start(f"{text} --first 'cat >/dev/null; valve 0' --routes fifo <a.qb")
            running.hold()
            running.release()
            fifo = os.open(archive.parent / "fifo", os.O_WRONLY)  # it has come to them
            process.send_signal(number)
            status, stderr = running.end() if number != signal.SIGKILL else (process.wait(), "")
            os.close(fifo)
            assert (status, stderr) == (-number, "")
            running.gone()
    finally:
        (archive.parent / "fifo").unlink()


def test_no_progress_line_while_routes_are_awaited(archive: Path, tmp_path: Path) -> None:
    """Text on the terminal, perhaps a question, stays readable."""
    os.mkfifo(tmp_path / "fifo")
    asking = "printf '<' >&2; sleep 0.8; printf '>' >&2; printf 'end\\n'"  # longer than a line stays as it is
    text = f"qb-unseal --passphrase-file {archive.parent}/passphrase --progress --to-command true"
    text += f" --first 'sleep 0.8; cat >/dev/null; echo >{tmp_path}/ready' --routes {tmp_path}/fifo <{archive}"
    waiting = f"while [ ! -e {tmp_path}/ready ]; do sleep 0.05; done"
    done = bash(f"{{ exec 3>{tmp_path}/fifo; {waiting}; sleep 0.3; {{ {asking}; }} >&3; }} & {text}")
    assert done.returncode == 0, done.stderr
    assert b"<>" in done.stderr
