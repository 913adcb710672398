"""qb-unseal --archive and --archives: several archives at once, by copies of one process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from running import PATIENCE, Running, wait_until
from support import ROOT, bash, copy_of, environment
from zeros import archive_of_zeros

from qbtools import reports

SIZES = {"vm1/a": 100, "vm1/b": 3_000_000}
LISTED = "".join(f"{name} {size}\n" for name, size in SIZES.items())
OPEN = "--passphrase-file passphrase --to-command"
COUNT = """'printf "%s %s\\n" "$QB_NAME" "$(wc -c)" >>"$OUT"'"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """a.qb, an archive of the files in SIZES; cut.qb, the same without its end."""
    archive = archive_of_zeros(tmp_path, SIZES)
    (tmp_path / "cut.qb").write_bytes(archive.read_bytes()[:-3000])
    return tmp_path


def test_each_has_its_own_words_and_input(place: Path) -> None:
    second = f"{OPEN} {COUNT.replace('$OUT', 'b')} vm1/b"
    done = bash(
        f"cd {place} && qb-unseal --archive 5 {OPEN} {COUNT.replace('$OUT', 'a')} --archive=0 {second} 5<a.qb <a.qb"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (place / "a").read_text() == LISTED
    assert (place / "b").read_text() == "vm1/b 3000000\n"


@pytest.mark.parametrize("words", ["--archives list", "--archives - <list", "--archives=- < <(sleep 1; cat list)"])
def test_the_words_from_a_file(place: Path, words: str) -> None:
    """A word may be anything without a NUL."""
    given = [*OPEN.split(), "\n".join([":", "printf '%s %s\\n' $QB_NAME $(wc -c) >>" + '"$OUT"', ": --archive 7 end"])]
    first, second = ["--archive", "5", *given], ["--archive=6", *given, "vm1/b"]
    (place / "list").write_text("".join(f"{word}\0" for word in (*first, *second, "end")))
    done = bash(f"cd {place} && export OUT=out && qb-unseal {words} 5<a.qb 6<a.qb")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert sorted((place / "out").read_text().splitlines()) == sorted([*LISTED.splitlines(), "vm1/b 3000000"])


def test_one_that_fails_decides_the_status_and_does_not_end_the_others(place: Path) -> None:
    words = " ".join(f"--archive {fd} {OPEN} {COUNT.replace('$OUT', str(fd))}" for fd in (3, 4, 5))
    done = bash(f"cd {place} && qb-unseal {words} 3<a.qb 4<cut.qb 5<a.qb")
    assert done.returncode == 4
    assert done.stderr.decode().splitlines()[0].startswith("qb-unseal: error: ")
    assert [(place / name).read_text() for name in "35"] == [LISTED, LISTED]


def test_one_that_a_signal_ends(place: Path) -> None:
    deadly = "'kill -9 $(ps -o ppid= $PPID)'"  # the parent of what watches over the command
    done = bash(
        f"cd {place} && qb-unseal --archive 3 {OPEN} {deadly} --archive 4 {OPEN} 'cat >/dev/null' 3<a.qb 4<a.qb"
    )
    assert (done.returncode, done.stdout) == (137, b"")


def test_who_writes_an_archive_learns_that_it_is_not_read(place: Path) -> None:
    """Without it, the writer would wait as long as the other archive is open."""
    with Running(place) as running:
        running.start(
            f"mkfifo pipe; {{ yes >pipe; echo $? >wrote; }} & exec qb-unseal"
            f" --archive 3 {OPEN} 'valve 100 >/dev/null' --archive 4 {OPEN} 'cat >/dev/null' 3<a.qb 4<pipe"
        )
        wait_until((place / "wrote").exists, "the end of the writer")
        assert (place / "wrote").read_text() == "141\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--archive", "--archive needs a value"),
        ("--archive x", "--archive: not the number of a descriptor: x"),
        ("--archive=-1 vm1/a", "--archive: not the number of a descriptor: -1"),
        ("--archive 3 vm1/a --archive 77 vm1/a 3<a.qb", "--archive: descriptor 77 is not open"),
        ("--archive 3 vm1/a --archive=03 vm1/a 3<a.qb", "--archive: descriptor 3 is given twice"),
        ("vm1/a --archive 3", "--archive must be the first word"),
        ("--archive 3 --typo vm1/a 3<a.qb", "unknown option: --typo"),
        ("--archives", "--archives needs a value"),
        ("--archives list vm1/a", "nothing can follow --archives FILE"),
        ("--archives=list --archive 3 vm1/a 3<a.qb", "nothing can follow --archives FILE"),
        ("-q --archives list", "--quiet does not go with the other arguments"),
        ("--archives <(printf '%s\\0' -i x end)", "-i comes before the first --archive"),
        ("--archives <(printf '%s\\0' --archive 77 end)", "--archive: descriptor 77 is not open"),
    ],
)
def test_wrong_usage(place: Path, words: str, message: str) -> None:
    done = bash(f"cd {place} && qb-unseal {words}")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().splitlines()[0] == f"qb-unseal: error: {message}"


@pytest.mark.parametrize(
    "given", ["", "end", "\0", "--archive\0003\0vm1/a\0", "--archive\0003\0vm1/a\0end", "x\0end\0\0"]
)
def test_a_list_of_words_that_is_cut(place: Path, given: str) -> None:
    """As it is when its writer has died: no archive is opened."""
    (place / "list").write_text(given)
    done = bash(f"cd {place} && qb-unseal --archives list 3<a.qb")
    assert (done.returncode, done.stdout) == (4, b"")
    assert done.stderr.decode().splitlines()[0] == "qb-unseal: error: the list of archives ends without its last word"


def test_a_list_of_words_that_does_not_end(place: Path) -> None:
    done = bash(f"cd {place} && yes | qb-unseal --archives -")
    assert (done.returncode, done.stderr) == (5, b"qb-unseal: error: the list of archives has more than 16 MiB\n")


def test_a_list_of_no_archives(place: Path) -> None:
    done = bash("printf 'end\\0' | qb-unseal --archives -")
    assert (done.returncode, done.stderr) == (2, b"qb-unseal: error: no archive given\n")


WAITING = f"exec qb-unseal --archive 3 {OPEN} 'valve 100 >/dev/null' --archive 4 {OPEN} 'cat >/dev/null; sleep 600'"


def test_if_the_first_process_is_killed_all_end(place: Path) -> None:
    with Running(place) as running:
        process = running.start(f"{WAITING} 3<a.qb 4<a.qb")
        running.hold()
        assert len(running.processes("qb-unseal")) == 3
        process.kill()
        running.gone()
        assert running.end()[0] == -9


def test_if_it_is_killed_all_end_also_if_sigterm_is_ignored(place: Path) -> None:
    """A command that has its whole file goes on, as if qb-unseal had been killed alone."""
    with Running(place) as running:
        process = running.start(f"trap '' TERM; {WAITING} 3<a.qb 4<a.qb")
        running.hold()
        process.kill()
        wait_until(lambda: not running.processes("qb-unseal"), "the end of the copies")


@pytest.mark.parametrize("number", [1, 2, 15])
def test_on_a_signal_the_first_process_ends_last(place: Path, number: int) -> None:
    slow = f"exec qb-unseal --archive 3 {OPEN} 'trap \"sleep 1; exit\" TERM; valve 100 >/dev/null & wait'"
    with Running(place) as running:
        process = running.start(f"{slow} --archive 4 {OPEN} 'cat >/dev/null; sleep 600' 3<a.qb 4<a.qb")
        running.hold()
        process.send_signal(number)
        assert process.wait(PATIENCE) == -number
        assert running.processes("qb-unseal") == []


def test_a_child_from_before_is_no_copy(place: Path) -> None:
    done = bash(f"cd {place} && exec qb-unseal --archive 3 {OPEN} 'cat >/dev/null' 3< <(cat a.qb; exit 7)")
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_package_that_cannot_be_loaded(place: Path) -> None:
    copy_of(place, "bin", "qbtools")
    words = f"--archive 3 {OPEN} 'cat >/dev/null' 3<a.qb"
    for name, fault, status in (("scrypt", "OSError('broken')", 0), ("cryptography", "ImportError('broken')", 1)):
        (place / name).mkdir()
        (place / name / "__init__.py").write_text(f"raise {fault}\n")
        done = bash(f"cd {place} && bin/qb-unseal {words}")
        assert (done.returncode, done.stderr.count(b"\n") > 2) == (status, False), done


def statuses_of_a_chain(place: Path, late: bool = False, end: str = "end\0") -> list[str]:
    """Those that bin/qb-backup reports for a chain of cut.qb and a.qb. late: it gets its words later, and then end."""
    (place / "list").write_text("end\n")
    report, writer = os.pipe()
    words_read, words_written = os.pipe()
    cut, whole, routes = (os.open(place / name, os.O_RDONLY) for name in ("cut.qb", "a.qb", "list"))
    given = ["=--passphrase-file=passphrase", "=-q"]
    none = f"=--routes={place / 'list'}"
    words = [":link0", f"={cut}", "=-", *given, none, ":link1", f"={whole}", "=-", *given]
    os.write(words_written, ("".join(f"{word}\0" for word in words) + end).encode())
    os.close(words_written)
    theirs = [writer, words_read, cut, whole, routes]
    done = subprocess.Popen(
        [ROOT / "bin/qb-backup", "chain", str(routes), str(writer), *([":later", f"={words_read}"] if late else words)],
        cwd=place,
        env=environment(QB_RUN_PID=str(os.getpid()), **reports.environment(writer)),
        pass_fds=theirs,
    )
    for fd in theirs:
        os.close(fd)
    assert done.wait(60) == 0
    with os.fdopen(report) as file:
        said = [line.split()[1:] for line in file if line.startswith("stages ")]
    return [status for statuses in said for status in statuses if status != "0"]


@pytest.mark.parametrize("late", [False, True])
def test_a_failure_in_a_chain_counts_once(place: Path, late: bool) -> None:
    """With each report of a status, qb-run counts one more stage that has failed."""
    assert statuses_of_a_chain(place, late) == ["4"]


@pytest.mark.parametrize("end", ["", "end", "x\0"])
def test_late_words_that_are_cut(place: Path, end: str) -> None:
    """No archive is opened: the shell that passes them on, and qb-unseal, which misses the end, have failed."""
    expected = ["4"] if end == "end" else ["4", "1"]  # bash takes a last word without its NUL
    assert statuses_of_a_chain(place, True, end) == expected


def test_a_qb_unseal_that_ends_without_reading_its_words(place: Path) -> None:
    """What it has not done is no success, whatever its status is."""
    copy_of(place, "bin", "qbtools")
    (place / "bin/qb-unseal").write_text("#!/bin/sh\nexit 0\n")
    (place / "root.img").touch()
    words = "-q --key-command base64 --series series"
    done = bash(
        f"cd {place} && mkdir -m 700 series && for n in 3 4; do qb-backup create {words} -o $n.qb root.img; done"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    done = bash(
        f"cd {place} && timeout 60 bin/qb-backup restore --any-writer --key-command 'base64 -d' --to to 3.qb 4.qb"
    )
    assert done.returncode == 1
    assert done.stderr == b"qb-backup: error: a stage ended with status 1\n"


def test_each_tells_its_progress_on_a_signal(place: Path) -> None:
    with Running(place) as running:
        process = running.start(f"{WAITING} 3<a.qb 4<a.qb 2>said")
        running.hold()
        process.send_signal(10)
        wait_until(lambda: (place / "said").read_bytes().count(b"\n") == 2, "two lines of progress")


class Told:
    """Runs two archives, of which the second never ends, with a pipe for reports: the first one is cut."""

    def __init__(self, place: Path) -> None:
        os.mkfifo(place / "endless")
        self.endless = os.open(place / "endless", os.O_RDWR)
        self.reader, writer = os.pipe()
        self.process = subprocess.Popen(
            ["bash", "-c", f"exec qb-unseal --archive 3 {OPEN} : --archive 4 {OPEN} : 3<cut.qb 4<endless"],
            cwd=place,
            env=environment(**reports.environment(writer)),
            pass_fds=[writer],
            stderr=subprocess.PIPE,
        )
        os.close(writer)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self.endless)


@pytest.fixture
def told(place: Path) -> Iterator[Told]:
    found = Told(place)
    yield found
    found.close()


def test_a_failure_is_reported_at_once(told: Told) -> None:
    said = bytearray()
    os.set_blocking(told.reader, False)

    def reported() -> bool:
        with suppress(BlockingIOError):
            said.extend(os.read(told.reader, 4096))
        return b"failing 4\n" in said

    wait_until(reported, "the report of the failure")
    assert told.process.poll() is None, "the other archive is still open"
    os.close(told.reader)


def test_if_nobody_reads_the_report_the_others_end(told: Told) -> None:
    os.close(told.reader)
    assert told.process.wait(60) == 4


LOADED = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from qbtools.commands import cli
from qbtools.commands.archive import qb_unseal
qb_unseal.load()
before = set(sys.modules)
leave = cli._leave
def told(status):
    for name in sorted(sys.modules.keys() - before):
        print(name, flush=True)
    leave(status)
cli._leave = told
cli.run("qb-unseal", qb_unseal.DOC, qb_unseal.main, sys.argv[1:])
"""


def test_a_copy_has_loaded_everything_before(place: Path) -> None:
    (place / "turns").mkdir()
    (place / "turns/0").touch()
    words = "--passphrase-file passphrase --turns turns --report report --to-command cat vm1/a"
    with (place / "a.qb").open("rb") as archive:
        done = subprocess.run(
            [sys.executable, "-c", LOADED, *words.split()],
            cwd=place,
            stdin=archive,
            capture_output=True,
            env=environment(),
            check=True,
        )
    later = done.stdout[SIZES["vm1/a"] :].decode().split()
    assert not {name.split(".")[0] for name in later} & {"qbtools", "cryptography", "scrypt"}, later
