"""qb-store: an archive gets its name when it is complete; any failure leaves the files as they were before."""

from __future__ import annotations

import os
import random
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from devices import tmpfs
from manual import examples
from running import Running, kill, wait_until
from sshhost import SshHost
from support import ROOT, bash, copy_of, environment, run
from vectors import archivebytes as made
from version3 import Maker, joined

CHUNK = 1 << 16
FILES = [
    *made.file("qubes.xml", b"x" * 20),
    *made.file("vm1/root.img", random.Random(1).randbytes(20 * CHUNK), size=CHUNK),
    *made.file("vm2/a.img", b""),
]
PIECES = [*made.header_pair(made.header(chunk_size=CHUNK)), *FILES, made.manifest(FILES)]
ARCHIVE = made.archive(PIECES)


def outcome(done: subprocess.CompletedProcess[bytes]) -> tuple[int, str]:
    assert done.stdout == b""
    return done.returncode, done.stderr.decode()


def store(*words: str | Path, data: bytes = ARCHIVE, **changes: str) -> tuple[int, str]:
    return outcome(run("qb-store", *words, data=data, **changes))


def names(place: Path) -> list[str]:
    return sorted(os.listdir(place))


# --- complete archives ---


def test_an_archive_that_arrives(tmp_path: Path) -> None:
    assert store(tmp_path / "a.qb") == (0, "")
    assert names(tmp_path) == ["a.qb"] and (tmp_path / "a.qb").read_bytes() == ARCHIVE
    assert stat.S_IMODE((tmp_path / "a.qb").stat().st_mode) == 0o600


def test_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "from").write_bytes(ARCHIVE)
    assert outcome(bash(f"qb-store {tmp_path}/a.qb <{tmp_path}/from")) == (0, "")
    assert (tmp_path / "a.qb").read_bytes() == ARCHIVE


def test_from_a_socket(tmp_path: Path) -> None:
    """What sshd may give its commands."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        started = subprocess.Popen(["qb-store", str(tmp_path / "a.qb")], stdin=theirs, env=environment())
        theirs.close()
        ours.sendall(ARCHIVE)
        ours.shutdown(socket.SHUT_WR)
        assert started.wait(60) == 0
    assert (tmp_path / "a.qb").read_bytes() == ARCHIVE


def test_what_is_said_with_verbose(tmp_path: Path) -> None:
    assert store("-v", tmp_path / "a.qb") == (0, f"qb-store: {tmp_path}/a.qb: {len(ARCHIVE)} bytes\n")


def test_what_qb_seal_makes(tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("stored\n")
    (tmp_path / "passphrase").chmod(0o600)
    done = bash(
        f"cd {tmp_path} && head -c 3M /dev/urandom >x && export QB_PASSPHRASE_FILE=passphrase &&"
        " qb-seal --opaque --logn 10 --chunk-size 64K a <x | qb-store a.qb && qb-unseal a <a.qb | cmp - x"
    )
    assert outcome(done) == (0, "")


def test_an_archive_that_promises_no_manifest_is_warned_of(tmp_path: Path) -> None:
    data = made.archive([*made.header_pair(made.header(chunk_size=None, manifest=False)), *FILES])
    warning = "the archive has no manifest: files that are missing at its end cannot be detected"
    assert store(tmp_path / "a.qb", data=data) == (0, f"qb-store: warning: {warning}\n")
    assert store("-q", tmp_path / "b.qb", data=data) == (0, f"qb-store: warning: {warning}\n")
    assert names(tmp_path) == ["a.qb", "b.qb"]


# --- what does not ---


@pytest.mark.parametrize("size", [0, 1, 511, 700, 3000, len(ARCHIVE) // 2, len(ARCHIVE) - 1025])
def test_an_archive_that_is_cut(size: int, tmp_path: Path) -> None:
    status, stderr = store(tmp_path / "a.qb", data=ARCHIVE[:size])
    assert status == 4 and stderr.startswith("qb-store: error: ") and stderr.count("\n") == 1
    assert names(tmp_path) == []
    assert store("--keep-partial", tmp_path / "a.qb", data=ARCHIVE[:size]) == (4, stderr)
    assert names(tmp_path) == ["a.qb.partial"] and (tmp_path / "a.qb.partial").read_bytes() == ARCHIVE[:size]


def test_its_errors_are_those_of_qb_unseal(tmp_path: Path) -> None:
    for at, piece in enumerate(PIECES):
        for pieces in (PIECES[:at] + PIECES[at + 1 :], PIECES[:at] + [piece] + PIECES[at:], PIECES[: at + 1]):
            data = made.archive(pieces)
            looked = run("qb-unseal", "--structure", data=data)
            status, stderr = store(tmp_path / f"{at}", data=data)
            assert (status, stderr.replace("qb-store", "qb-unseal")) == outcome(looked)
            assert (tmp_path / f"{at}").exists() == (status == 0)
            (tmp_path / f"{at}").unlink(missing_ok=True)
        if at == 5:
            break


def test_what_follows_the_end(tmp_path: Path) -> None:
    assert store(tmp_path / "a.qb", data=ARCHIVE + ARCHIVE)[0] == 4
    assert names(tmp_path) == []


@pytest.mark.parametrize("version", ["3", "2", "5"])
def test_other_versions(version: str, tmp_path: Path) -> None:
    if version == "3":
        text = Maker(tmp_path).header()
        data = joined(tmp_path, [("backup-header", text), ("backup-header.hmac", Maker(tmp_path).hmac(text))])
        said = "an archive of version 3: only version 4 has a structure to check"
    elif version == "2":
        data = made.archive([("qubes.xml.000", b"x"), ("qubes.xml.000.hmac", b"y")])
        said = "no backup-header: an archive of version 2 or older, which is not read"
    else:
        text = made.header().replace(b"version=4", b"version=5")
        data = made.archive([*made.header_pair(text), *FILES])
        said = "backup-header: unknown version 5"
    (tmp_path / "place").mkdir()
    expected = f"qb-store: error: {said}\nhint: qb-store takes archives of version 4 only\n"
    assert store(tmp_path / "place/a.qb", data=data) == (5, expected)
    assert names(tmp_path / "place") == []


def test_no_space(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", len(ARCHIVE) // 2) as small:
        status, stderr = store(small / "a.qb")
        assert status == 1 and "No space left on device" in stderr and stderr.count("\n") == 1
        assert names(small) == []


@pytest.mark.parametrize("size", [0, 1, 1000, len(ARCHIVE) // 2, len(ARCHIVE) - 1])
def test_more_than_the_largest_size(size: int, tmp_path: Path) -> None:
    expected = f"qb-store: error: the archive has more than {size} bytes\nhint: --max-size sets the limit\n"
    words = f"--max-size={size}", tmp_path / "a.qb"
    assert store(*words) == (5, expected)
    assert names(tmp_path) == []
    assert store("--keep-partial", *words) == (5, expected)
    assert (tmp_path / "a.qb.partial").stat().st_size <= size


def test_exactly_the_largest_size(tmp_path: Path) -> None:
    assert store(f"--max-size={len(ARCHIVE)}", tmp_path / "a.qb") == (0, "")


# --- a sender that is silent ---


@pytest.mark.parametrize("size", [0, 700, 5000, len(ARCHIVE) - 1024])
@pytest.mark.parametrize("target", ["a.qb", "-"])
def test_a_silent_sender_is_given_up(size: int, target: str, tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    words = ["qb-store", "--idle-limit", "1", target]
    streams = {"stdin": ours, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, cwd=tmp_path, env=environment(), **streams) as started:  # type: ignore[call-overload]
        os.close(ours)
        try:
            for at in range(0, size, 4096):
                os.write(theirs, ARCHIVE[at : min(at + 4096, size)])
            stdout, stderr = started.communicate(timeout=60)
        finally:
            os.close(theirs)
    assert (started.returncode, stderr) == (1, b"qb-store: error: no data from the archive for 1 seconds\n")
    assert names(tmp_path) == []
    assert ARCHIVE.startswith(stdout) and (target == "-" or not stdout)


@pytest.mark.parametrize("limit", ["90", "90s", "30m", "2h", "500h"])
def test_idle_limits(limit: str, tmp_path: Path) -> None:
    assert store("--idle-limit", limit, tmp_path / "a.qb") == (0, "")


@pytest.mark.parametrize(
    ("limit", "message"),
    [(text, "not a time") for text in ("", "x", "s", "1d", "1.5h", "-1", " 1", "1 s", "1S", "٣")]
    + [(text, "must be between 1s and 500h") for text in ("0", "0h", "501h", "999999999")],
)
def test_no_idle_limits(limit: str, message: str, tmp_path: Path) -> None:
    status, stderr = store(f"--idle-limit={limit}", tmp_path / "a.qb")
    assert status == 2 and stderr.startswith(f"qb-store: error: --idle-limit: {message}")


# --- names that are taken ---


@pytest.mark.parametrize("what", ["file", "dangling link"])
def test_an_existing_file_is_found_before_the_first_byte_is_read(what: str, tmp_path: Path) -> None:
    place = tmp_path / "a.qb"
    if what == "file":
        place.write_bytes(b"before")
    else:
        place.symlink_to("nowhere")
    ours, theirs = os.pipe()  # nothing comes, and it does not end
    done = subprocess.run(["qb-store", place], stdin=ours, capture_output=True, env=environment(), timeout=60)
    os.close(ours)
    os.close(theirs)
    assert outcome(done) == (5, f"qb-store: error: {place} already exists\nhint: --overwrite replaces it\n")
    assert names(tmp_path) == ["a.qb"]
    assert what != "file" or place.read_bytes() == b"before"


def test_overwriting(tmp_path: Path) -> None:
    (tmp_path / "a.qb").write_bytes(b"before")
    assert store("--overwrite", tmp_path / "a.qb", data=ARCHIVE[:-2000])[0] == 4
    assert (tmp_path / "a.qb").read_bytes() == b"before"
    assert store("--overwrite", tmp_path / "a.qb") == (0, "")
    assert (tmp_path / "a.qb").read_bytes() == ARCHIVE


def test_a_symbolic_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "a.qb.partial").symlink_to("precious")
    expected = f"qb-store: error: {tmp_path}/a.qb.partial already exists, and is a symbolic link\nhint: remove it\n"
    assert store("--overwrite", tmp_path / "a.qb") == (5, expected)
    assert (tmp_path / "precious").read_bytes() == b"precious" and (tmp_path / "a.qb.partial").is_symlink()


# --- runs that end, and runs that live ---


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """A run of `valve N <archive | qb-store place/a.qb`, to be started."""
    (tmp_path / "archive").write_bytes(ARCHIVE)
    (tmp_path / "place").mkdir()
    with Running(tmp_path) as made:
        yield made


def hold(running: Running, place: Path) -> int:
    """Starts it and stops it in the middle; returns the process of qb-store."""
    running.start("valve 500000 <archive | qb-store place/a.qb")
    running.hold()
    wait_until((place / "place/a.qb.partial").exists, "the partial file")
    return running.one("qb-store")


def test_a_run_that_lives_is_left_alone(running: Running, tmp_path: Path) -> None:
    hold(running, tmp_path)
    expected = f"qb-store: error: another run is writing {tmp_path}/place/a.qb.partial\n"
    for option in ("-q", "--overwrite"):
        assert store(option, tmp_path / "place/a.qb") == (5, expected)
    running.release()
    assert running.end() == (0, "")
    assert names(tmp_path / "place") == ["a.qb"] and (tmp_path / "place/a.qb").read_bytes() == ARCHIVE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_cleans_up(number: signal.Signals, running: Running, tmp_path: Path) -> None:
    kill(hold(running, tmp_path), number)
    running.release()
    status, stderr = running.end()
    assert status == 128 + number and "qb-store: " not in stderr  # bash may have a word of its own
    assert names(tmp_path / "place") == []


def test_what_sigkill_leaves_is_replaced(running: Running, tmp_path: Path) -> None:
    kill(hold(running, tmp_path), signal.SIGKILL)
    running.release()
    assert running.end()[0] == 137
    assert names(tmp_path / "place") == ["a.qb.partial"]
    assert store(tmp_path / "place/a.qb") == (0, "")
    assert names(tmp_path / "place") == ["a.qb"] and (tmp_path / "place/a.qb").read_bytes() == ARCHIVE


def test_a_sender_that_is_killed(running: Running, tmp_path: Path) -> None:
    hold(running, tmp_path)
    kill(running.one("valve"), signal.SIGKILL)
    status, stderr = running.end()
    assert status == 4 and stderr.startswith("qb-store: error: the archive ends in the middle of vm1/root.img.")
    assert names(tmp_path / "place") == []


def test_a_file_that_appears_meanwhile(running: Running, tmp_path: Path) -> None:
    hold(running, tmp_path)
    (tmp_path / "place/a.qb").write_bytes(b"somebody else's")
    running.release()
    assert running.end() == (5, "qb-store: error: place/a.qb already exists: another program created it meanwhile\n")
    assert names(tmp_path / "place") == ["a.qb"] and (tmp_path / "place/a.qb").read_bytes() == b"somebody else's"


# --- passing on ---


def test_passing_on() -> None:
    done = run("qb-store", "-", data=ARCHIVE)
    assert (done.returncode, done.stdout, done.stderr) == (0, ARCHIVE, b"")


def test_copying_a_cut_archive(tmp_path: Path) -> None:
    done = run("qb-store", "-", data=ARCHIVE[:500_000])
    assert (done.returncode, done.stdout) == (4, ARCHIVE[:500_000])


def test_a_reader_that_leaves() -> None:
    done = bash("qb-store - | true; echo ${PIPESTATUS[0]}", data=ARCHIVE)
    assert (done.stdout, done.stderr) == (b"141\n", b"")


@pytest.mark.parametrize("option", ["--overwrite", "--keep-partial"])
def test_options_of_a_file(option: str) -> None:
    expected = f"qb-store: error: {option} does not go with -, which writes no file\n"
    assert store(option, "-") == (2, expected)


# --- a directory that can only be added to ---


@pytest.mark.parametrize("words", [("vm1.qb",), ()])
@pytest.mark.parametrize("command", ["vm1.qb", "qb-store vm1.qb"])
def test_a_name_in_a_directory(words: tuple[str, ...], command: str, tmp_path: Path) -> None:
    """The argument comes before what ssh has to say."""
    said = "other.qb" if words else command
    assert store("--dir", tmp_path, *words, SSH_ORIGINAL_COMMAND=said) == (0, "")
    assert names(tmp_path) == ["vm1.qb"]


@pytest.mark.parametrize(
    "command",
    [
        *("", "qb-store", "qb-store ", "qb-store  a", " a", "a ", "a b", "qb-store a b", "qb-store qb-store a"),
        *("../a", "/tmp/a", ".a", "-a", "a.partial", "a" * 241, "a\nb", "a;id", "$(id)", "qb-store --overwrite a"),
        *("qb-store --overwrite", "--overwrite", "qb-store -", "-", "qb-unseal a", "qb-store\ta", "ä"),
    ],
)
def test_commands_that_are_refused(command: str, tmp_path: Path) -> None:
    status, stderr = store("--dir", tmp_path, SSH_ORIGINAL_COMMAND=command)
    assert status == 5 and stderr.startswith("qb-store: error: the command that came through ssh")
    assert stderr.endswith("\nhint: send: qb-store NAME\n") and stderr.count("\n") == 2
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["../a", "a/b", ".a", "a.partial", "a" * 241, "", "-", "qb-store a"])
def test_arguments_that_are_refused(name: str, tmp_path: Path) -> None:
    assert store("--dir", tmp_path, name)[0] == 2
    assert names(tmp_path) == []


def test_no_name_at_all(tmp_path: Path) -> None:
    status, stderr = store("--dir", tmp_path)
    assert status == 2 and stderr.startswith("qb-store: error: no NAME\n")


def test_only_the_forced_command_can_overwrite(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"before")
    assert store("--dir", tmp_path, SSH_ORIGINAL_COMMAND="a")[0] == 5
    assert (tmp_path / "a").read_bytes() == b"before"
    assert store("--dir", tmp_path, "--overwrite", SSH_ORIGINAL_COMMAND="a") == (0, "")
    assert (tmp_path / "a").read_bytes() == ARCHIVE


@pytest.fixture(scope="module")
def adding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHost]:
    """A host with the line of authorized_keys that the manual has."""
    place = tmp_path_factory.mktemp("adding")
    (place / "backups").mkdir()
    line = examples("qbtools.7")["ssh-key"].strip()
    options, key, _comment = line.rsplit(" ", 2)
    assert key.startswith("AAAA") and options.endswith(" ssh-ed25519")
    options = options.removesuffix(" ssh-ed25519")
    assert options == 'restrict,command="qb-store --dir /srv/backups"'
    with SshHost(place, options.replace("/srv/backups", f"{place}/backups")) as started:
        yield started


def send(host: SshHost, command: str, data: bytes = ARCHIVE) -> subprocess.CompletedProcess[bytes]:
    return run("ssh", "store", command, data=data, PATH=f"{host.programs}:{environment()['PATH']}")


def test_a_key_that_can_only_add(adding: SshHost) -> None:
    backups = adding.place / "backups"
    assert names(backups) == []
    assert outcome(send(adding, "qb-store vm1.qb")) == (0, "")
    assert outcome(send(adding, "vm2.qb")) == (0, "")
    before = (backups / "vm1.qb").stat()
    status, stderr = outcome(send(adding, "qb-store vm1.qb", made.archive(PIECES, bytes(10240))))
    assert (status, stderr.splitlines()[0]) == (5, f"qb-store: error: {backups}/vm1.qb already exists")
    for command in ("cat vm1.qb", "rm vm1.qb", "qb-store ../x.qb", "qb-store --overwrite vm1.qb", "sh -c 'rm *'"):
        assert outcome(send(adding, command))[0] == 5
    assert outcome(send(adding, "qb-store cut.qb", ARCHIVE[:-4000]))[0] == 4
    assert names(backups) == ["vm1.qb", "vm2.qb"] and (backups / "vm1.qb").stat() == before
    assert {(backups / name).read_bytes() for name in ("vm1.qb", "vm2.qb")} == {ARCHIVE}


def test_a_connection_that_breaks(adding: SshHost, tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(ARCHIVE)
    backups = adding.place / "backups"
    with Running(tmp_path) as running:
        running.program("ssh", (adding.programs / "ssh").read_text())
        running.start("valve 500000 <archive | ssh store qb-store broken.qb")
        running.hold()
        kill(running.one("ssh"), signal.SIGKILL)
        running.release()
        assert running.end()[0] != 0
    # The same name is free as soon as the other end has noticed.
    done = bash(
        "for _ in {1..100}; do qb-store $FILE <$IN && exit; sleep 0.1; done; exit 1",
        **{"FILE": f"{backups}/broken.qb", "IN": f"{tmp_path}/archive"},
    )
    assert done.returncode == 0
    assert [name for name in names(backups) if name.startswith("broken")] == ["broken.qb"]


# --- a host that has Python and nothing else ---

# No package is in reach: not beside Python, and not by the way in which our programs look for one.
_ALONE = """
import runpy, sys
for name in ("site", "docopt", "scrypt", "cryptography", "tqdm"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("words", "status"),
    [(["a.qb"], 0), (["--dir", "."], 0), (["-"], 0), (["--help"], 0), ([], 2), (["a", "b"], 2), (["--none"], 2)],
)
def test_python_alone_is_enough(words: list[str], status: int, tmp_path: Path) -> None:
    copy = copy_of(tmp_path / "copy", "bin", "qbtools")
    (tmp_path / "here").mkdir()
    done = subprocess.run(
        ["python3", "-IS", "-c", _ALONE, copy / "bin/qb-store", *words],
        input=ARCHIVE,
        capture_output=True,
        cwd=tmp_path / "here",
        env=environment(SSH_ORIGINAL_COMMAND="a.qb", QB_DEBUG="1"),
        check=False,
    )
    assert (done.returncode, b"internal" in done.stderr) == (status, False), done.stderr
    assert names(tmp_path / "here") == (["a.qb"] if words in (["a.qb"], ["--dir", "."]) else [])
    assert str(ROOT).encode() not in done.stderr
    if words == ["--none"]:
        assert b"unknown option: --none" in done.stderr
