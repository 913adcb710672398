"""qb-backup create --series: days of changes, restored by hand; runs that fail, are killed, or run at the same time."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from devices import tmpfs
from nights import ids_of
from running import Running, kill
from support import bash, run

SECRET = {"QB_PASSPHRASE_COMMAND": "echo series"}
CREATE = ["qb-backup", "create", "--logn=10", "--series=series"]
MIB = 1 << 20


class Place:
    """A directory with volumes and a series."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.days: list[str] = []

    def fill(self, name: str, size: int, seed: int) -> None:
        (self.path / name).write_bytes(random.Random(seed).randbytes(size))

    def change(self, name: str, at: int, data: bytes) -> None:
        with (self.path / name).open("r+b") as file:
            file.seek(at)
            file.write(data)

    def create(self, *words: str, status: int = 0, **changes: str) -> str:
        """Saves; returns standard error."""
        done = bash(f"cd {self.path} && exec {' '.join([*CREATE, *words])}", **SECRET, **changes)
        assert done.returncode == status, done
        return done.stderr.decode()

    def day(self, *words: str, voice: str = "-q") -> tuple[str | None, str]:
        """Saves to the next file. Returns the ID of its base, and standard error."""
        file = f"day{len(self.days)}.qb"
        self.days.append(file)
        said = self.create(voice, "-o", file, *words)
        return self.header(file)["base"], said

    def header(self, file: str) -> dict[str, str | None]:
        return ids_of(self.path / file)

    def listed(self) -> list[list[str]]:
        done = run("qb-series", "list", self.path / "series")
        assert (done.returncode, done.stderr) == (0, b"")
        return [line.split("\t") for line in done.stdout.decode().splitlines()]

    def base(self) -> str:
        return str(json.loads(run("qb-series", "list", "--json", self.path / "series").stdout)["base"])

    def restored(self, name: str, *files: str) -> bytes:
        """The volume with this name in the archives, merged by hand."""
        parts = (f"<(qb-unseal {name} <{file} | gzip -dc | qb-tarextract)" for file in files)
        text = f"cd {self.path} && rm -f restored.img && qb-merge {' '.join(parts)} | qb-volwrite restored.img"
        done = bash(text, **SECRET)
        assert (done.returncode, done.stderr) == (0, b""), done
        return (self.path / "restored.img").read_bytes()

    def bytes(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def pending(self) -> list[str]:
        return os.listdir(self.path / "series/pending")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.fill("work.img", 2 * MIB + 4096, 1)
    made.fill("mail.img", MIB, 2)
    return made


def test_three_days(place: Place) -> None:
    words = ("work:root=work.img", "work:private=mail.img")
    assert place.day(*words) == (None, "")
    for number in (1, 2):
        place.change("work.img", 700_000 * number, b"changed" * 1000)
        place.change("mail.img", 5, bytes([number]))
        assert place.day(*words) == (place.header(f"day{number - 1}.qb")["id"], "")
        assert (place.path / f"day{number}.qb").stat().st_size < 300_000
    assert place.restored("vm1/root.img", *place.days) == place.bytes("work.img")
    assert place.restored("vm1/private.img", *place.days) == place.bytes("mail.img")
    assert [row[1] for row in place.listed()] == ["confirmed"] * 3
    assert [row[5] for row in place.listed()] == [str(place.path / file) for file in place.days]
    assert place.pending() == []
    assert (place.path / "series").stat().st_mode & 0o777 == 0o700
    index = place.path / "series/indexes" / place.base() / "vm1.root.img.index"
    assert index.read_bytes()[56:64] == (8 << 10).to_bytes(8, "big"), "bytes of a block"


def test_a_domain_keeps_its_number(place: Place) -> None:
    """Whatever is added before it, in whatever order they are given, and also after it was left out for a day."""
    place.day("mail:root=mail.img")
    place.change("mail.img", 100_000, b"second")
    place.day("work:root=work.img", "work:private=mail.img", "mail:root=mail.img")
    assert place.restored("vm1/root.img", *place.days) == place.bytes("mail.img")
    assert place.restored("vm2/root.img", "day1.qb") == place.bytes("work.img")
    place.change("work.img", 1, b"third")
    place.day("work:private=mail.img", "work:root=work.img")
    place.change("mail.img", 2, b"fourth")
    assert place.day("new:root=mail.img", "mail:root=mail.img", "work:root=work.img")[1] == ""
    assert place.restored("vm2/root.img", *place.days[1:]) == place.bytes("work.img")
    assert place.restored("vm1/root.img", "day3.qb") == place.bytes("mail.img"), "its base did not have it"
    assert place.restored("vm3/root.img", "day3.qb") == place.bytes("mail.img")


def test_a_volume_shrinks_and_grows(place: Place) -> None:
    for size in (None, 1_000_000, 3 * MIB, 0, 5000):
        if size is not None:
            os.truncate(place.path / "work.img", size)
        place.day("work:root=work.img")
        if size is not None and size != 1_000_000:
            assert place.restored("vm1/root.img", *place.days) == place.bytes("work.img")
    assert place.listed()[-1][2] != "-"


def test_standard_output_is_confirmed_by_hand(place: Place) -> None:
    """Until then each run is based on the last archive that is confirmed."""
    words = "--id-file id work:root=work.img"
    assert place.create("-q", words, ">a.qb") == ""
    first = place.bytes("id").decode().strip()
    assert [row[:2] for row in place.listed()] == [[first, "pending"]]
    said = place.create("-q", words, ">b.qb")
    assert said == "qb-backup: warning: saving everything: no archive of the series is confirmed\n"
    assert run("qb-series", "confirm", place.path / "series", first).returncode == 0
    bases = []
    for file in ("c.qb", "d.qb"):
        place.change("work.img", 3, file.encode())
        assert place.create("-q", words, f">{file}") == ""
        bases.append(place.header(file)["base"])
    assert bases == [first, first]
    assert place.restored("vm1/root.img", "a.qb", "d.qb") == place.bytes("work.img")
    recipe = "qb-series confirm series $(cat id)"
    done = bash(f"cd {place.path} && {' '.join(CREATE)} -q {words} | qb-store e.qb && {recipe}", **SECRET)
    assert (done.returncode, done.stderr) == (0, b"")
    assert place.base() == place.bytes("id").decode().strip()


def test_a_command_stores_it(place: Place) -> None:
    assert place.create("-q", "--store", "'qb-store far-$QB_BACKUP_ID.qb'", "work:root=work.img") == ""
    (row,) = place.listed()
    assert row[1] == "confirmed" and (place.path / f"far-{row[0]}.qb").exists()


@pytest.mark.parametrize(
    ("command", "status", "error"),
    [
        ("exit 3", 1, "qb-backup: error: --store: the command ended with status 3\n"),
        ("cat >all; exit 3", 1, "qb-backup: error: --store: the command ended with status 3\n"),
        ("sleep 2", 1, "qb-backup: error: --store: the command ended before it had read the archive\n"),
        ("head -c 50 >part", 1, "qb-backup: error: --store: the command ended before it had read the archive\n"),
        ("qb-store mail.img", 5, "qb-store: error: mail.img already exists\nhint: --overwrite replaces it\n"),
    ],
)
def test_a_command_that_does_not_store_it(command: str, status: int, error: str, place: Place) -> None:
    """Also if the archive is so small that it fits into the pipe."""
    place.fill("small.img", 100, 1)
    assert place.create("-q", f"--store='{command}'", "work:root=small.img", status=status) == error
    assert (place.listed(), place.pending()) == ([], [])


def test_the_command_gets_no_end_of_an_archive_that_failed(place: Place, tmp_path: Path) -> None:
    (place.path / "run").mkdir()
    running = Running(place.path / "run", place.path, **SECRET)
    with running:
        running.hold_in("vm1/root.img", 5000)
        running.start("exec " + " ".join([*CREATE, "-q", "--store='cat >part && touch stored'", "work:root=work.img"]))
        running.hold()
        kill(running.one("qb-run"), signal.SIGKILL)
        running.gone()
    assert not (place.path / "stored").exists()


def test_full_and_full_after_and_differential(place: Place) -> None:
    """With -v the reason is said."""
    for option, base, reason in (
        ("", None, "saving everything: no archive of the series is confirmed"),
        ("--full-after=1", 0, "saving what has changed since {}: increment 1 of the chain"),
        ("--full-after=1", None, "saving everything: the chain has 1 increment"),
        ("", 2, "saving what has changed since {}: increment 1 of the chain"),
        ("--differential", 2, "saving what has changed since {}: increment 1 of the chain"),
        ("--full", None, "saving everything: --full was given"),
    ):
        found, said = place.day(option, "work:root=work.img", voice="-v")
        based = None if base is None else place.header(f"day{base}.qb")["id"]
        assert found == based, option
        assert f"qb-backup: {reason.format(based)}\n" in said
        if option == "--differential":
            assert place.restored("vm1/root.img", "day2.qb", place.days[-1]) == place.bytes("work.img")
        place.change("work.img", len(place.days) * 1000, b"x")


def test_the_name_of_an_archive_that_is_still_needed(place: Place) -> None:
    """A script that renames each archive to the same name would replace the full one."""
    words = ("-q", "-o new.qb", "work:root=work.img")
    assert place.create(*words) == ""
    first = place.listed()[0][0]
    os.rename(place.path / "new.qb", place.path / "full.qb")
    warning = f"qb-backup: warning: new.qb was also the name of {first}, which the new archive needs\n"
    assert place.create(*words) == warning
    os.unlink(place.path / "new.qb")
    assert place.create("--full", *words) == "", "it needs no other"


def test_an_index_that_is_odd(place: Place) -> None:
    """Everything is saved then, and that is a base again."""
    words = ("work:root=work.img", "work:private=mail.img")
    os.truncate(place.path / "mail.img", 2 * MIB + 4096)
    place.day(*words)
    for how in ("cut", "flipped", "of another volume", "missing"):
        folder = place.path / "series/indexes" / place.base()
        index = folder / "vm1.root.img.index"
        data = index.read_bytes()
        if how == "cut":
            index.write_bytes(data[:-1])
        elif how == "flipped":
            index.write_bytes(data[:600] + bytes([data[600] ^ 4]) + data[601:])
        elif how == "missing":
            index.unlink()
        else:
            shutil.copy(folder / "vm1.private.img.index", index)
        base, said = place.day(*words)
        assert base is None, how
        assert said.startswith("qb-backup: warning: saving everything: ") and said.count("\n") == 1
        assert str(index) in said
    assert place.day(*words)[0] is not None


def test_a_directory_of_last_week(place: Place) -> None:
    place.day("work:root=work.img")
    shutil.copytree(place.path / "series", place.path / "old")
    place.change("work.img", 1000, b"a")
    place.day("work:root=work.img")
    shutil.rmtree(place.path / "series")
    os.rename(place.path / "old", place.path / "series")
    base, said = place.day("work:root=work.img")
    assert base is None
    assert said.endswith("/series was copied or restored from a backup\n") and said.count("\n") == 1
    assert place.day("work:root=work.img") == (place.header("day2.qb")["id"], "")


def test_two_runs_at_once(place: Place) -> None:
    """The second is refused; confirming and listing is not."""
    place.create("-q", ">a.qb", "work:root=work.img")
    (place.path / "run").mkdir()
    with Running(place.path / "run", place.path, **SECRET) as running:
        running.hold_in("vm1/root.img", 5000)
        running.start("exec " + " ".join([*CREATE, "-q", "-o b.qb", "work:root=work.img"]))
        running.hold()
        said = place.create("-q", "-o c.qb", "work:root=work.img", status=5)
        assert said == f"qb-backup: error: another run is using the series {place.path}/series\n"
        assert [row[1] for row in place.listed()] == ["pending", "unfinished"]
        done = run("qb-series", "confirm", place.path / "series", place.listed()[1][0])
        assert (done.returncode, b"is not complete\n" in done.stderr) == (5, True)
        assert run("qb-series", "confirm", place.path / "series", place.listed()[0][0]).returncode == 0
        running.release()
        assert running.end()[0] == 0
    assert [row[1] for row in place.listed()] == ["confirmed"] * 2
    assert not (place.path / "c.qb").exists()


def test_a_run_keeps_its_base_while_another_archive_is_confirmed(place: Place) -> None:
    words = ("mail:root=mail.img", "work:root=work.img")
    place.day(*words)
    place.create("-q", "--full", ">late.qb", *words)
    place.change("work.img", 70_000, b"changed")
    (place.path / "run").mkdir()
    with Running(place.path / "run", place.path, **SECRET) as running:
        running.hold_in("vm1/root.img", 100)
        running.start("exec " + " ".join([*CREATE, "-q", "-o b.qb", *words]))
        running.hold()
        assert run("qb-series", "confirm", place.path / "series", place.listed()[1][0]).returncode == 0
        running.release()
        assert running.end() == (0, "")
    assert place.restored("vm2/root.img", "day0.qb", "b.qb") == place.bytes("work.img")
    assert place.base() == place.header("b.qb")["id"]


def test_killed_at_some_moment(place: Place) -> None:
    """The series is as it was, or the archive has its name and is confirmed. The next run is right."""
    words = ["work:root=work.img", "mail:root=mail.img"]
    place.day(*words)
    rng = random.Random(7)
    for turn in range(4):
        (place.path / f"run{turn}").mkdir()
        place.change("work.img", rng.randrange(MIB), rng.randbytes(100))
        before = place.base()
        file = f"killed{turn}.qb"
        with Running(place.path / f"run{turn}", place.path, **SECRET) as running:
            running.start("exec " + " ".join([*CREATE, "-q", "-o", file, *words]))
            time.sleep(rng.uniform(0.2, 1.6))
            for pid in running.processes():
                kill(pid, signal.SIGKILL)
            running.gone()
        if place.base() != before:
            assert place.header(file) == {"base": before, "id": place.base()}
            place.days.append(file)
        before = place.base()
        assert place.day(*words) == (before, "")
        assert place.pending() == []
    assert place.restored("vm1/root.img", *place.days) == place.bytes("work.img")


def test_an_interrupt_leaves_nothing(place: Place) -> None:
    place.day("work:root=work.img")
    (place.path / "run").mkdir()
    before = (place.path / "series/ledger").read_bytes().split(b"\n")[3:]
    with Running(place.path / "run", place.path, **SECRET) as running:
        running.hold_in("vm1/root.img", 100)
        running.start("exec " + " ".join([*CREATE, "-q", "-o b.qb", "work:root=work.img"]))
        running.hold()
        kill(running.one("qb-run"), signal.SIGINT)
        assert running.end()[0] == -signal.SIGINT
        running.gone()
    assert place.pending() == []
    assert (place.path / "series/ledger").read_bytes().split(b"\n")[3:-2] == before[:-2]
    assert not (place.path / "b.qb").exists()


def test_no_room_for_the_index(place: Place) -> None:
    with tmpfs(place.path / "small", size=64 << 10) as small:
        os.mkdir(small / "series", 0o700)
        os.truncate(place.path / "work.img", 1 << 30)  # its index has 1 MiB
        words = ["qb-backup", "create", "-q", "--logn=10", f"--series={small}/series", f"-o{place.path}/a.qb"]
        done = run(*words, f"work:root={place.path}/work.img", **SECRET)
        assert done.returncode == 1 and b"No space left on device" in done.stderr
        assert not (place.path / "a.qb").exists()
        assert os.listdir(small / "series/pending") == []
        done = run(*words, f"mail:root={place.path}/mail.img", **SECRET)
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--full", "--full needs --series"),
        ("--store=cat", "--store needs --series"),
        ("--full-after=2", "--full-after needs --series"),
        ("--series=s --full --differential", "--full and --differential exclude each other"),
        ("--series=s --store=cat -o a.qb", "--output and --store exclude each other"),
        ("--series=s --store=' '", "--store: the command is empty"),
        ("--series=s --full-after=x", "--full-after: must be a number between 0 and 1073741824"),
        ("--series=s --host=dir:x --each -o .", "--series does not go with --each"),
        ("--series=", "--series: the name is empty"),
    ],
)
def test_options_that_do_not_fit(words: str, error: str, place: Place) -> None:
    done = bash(f"cd {place.path} && qb-backup create {words} work:root=work.img", **SECRET)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().splitlines()[0] == f"qb-backup: error: {error}"
    assert not (place.path / "s").exists()
