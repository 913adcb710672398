"""A machine that saves for recipients: its passphrase is visible nowhere, and no leftover opens the archive.

The passphrase is only known afterwards. So everything that looks like a passphrase is recorded during the run.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import identities
import pytest
from running import Running, marked, read, wait_until
from support import bash, environment, missing, need, run
from watching import Watch, limits, opened, regular

MADE = re.compile(rb"(?<![a-z2-7])[a-z2-7]{52}(?![a-z2-7])")
"""What a made passphrase looks like."""

BY_HAND = """
id=$(qb-header id) &&
secret=$(qb-header write --backup-id "$id" -R to --secret-fd 4 4>&1 >$OUT) &&
valve 1000000 <root.img | qb-seal --opaque --chunk-size 512K --logn 10 --backup-id "$id" --record $OUT.records \\
    --passphrase-fd 5 a >>$OUT 5< <(printf %s "$secret") &&
qb-manifest --logn 10 --backup-id "$id" --passphrase-fd 5 $OUT.records >>$OUT 5< <(printf %s "$secret")
"""
SAVING = {
    "recipients": "qb-backup create -q --chunk-size 512K -R to vm1:root=root.img | valve 1000000 >$OUT",
    "to a file": "qb-backup create -q --chunk-size 512K -R to -o $OUT vm1:root=root.img",
    "a command too": "qb-backup create -q --chunk-size 512K -R to --key-command 'tr a-z2-7 2-7a-z' vm1:root=root.img |"
    " valve 1000000 >$OUT",
    "qb-seal": "valve 1000000 <root.img | qb-seal -q --opaque --chunk-size 512K -R to a >$OUT",
    "by hand": BY_HAND,
}
OPENING = {
    "restore": "qb-backup restore --any-writer -i identity --map vm1:root=$OUT backup.qb",
    "verify": "qb-backup verify --any-writer --key-command 'tr 2-7a-z a-z2-7' backup.qb",
    "qb-unseal": "valve 1000000 <backup.qb | qb-unseal --any-writer -i identity --verify",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the machine that saves: a volume and recipients. The identity is in another place."""
    place = tmp_path_factory.mktemp("saving")
    (place / "root.img").write_bytes(os.urandom(8 << 20))
    (place / "to").write_text(identities.age(place.parent / f"{place.name}.identity") + "\n")
    return place


@pytest.fixture(scope="module")
def identity(folder: Path) -> Path:
    return folder.parent / f"{folder.name}.identity"


@pytest.fixture(scope="module")
def opening(folder: Path, identity: Path) -> Path:
    """The files of a machine that opens: an archive and the identity."""
    place = folder.parent / f"{folder.name}.opening"
    place.mkdir()
    shutil.copy(identity, place / "identity")
    text = f"cd {folder}; {SAVING['a command too'].replace('valve 1000000', 'cat')}"
    made = bash(text, OUT=str(place / "backup.qb"))
    assert (made.returncode, made.stderr) == (0, b"")
    return place


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[[Path], Running]]:
    """Makes a run in a folder. TMPDIR and HOME are empty directories."""
    made: list[Running] = []

    def start(where: Path) -> Running:
        for name in ("tmp", "home"):
            (tmp_path / name).mkdir()
        places = {"TMPDIR": str(tmp_path / "tmp"), "HOME": str(tmp_path / "home")}
        made.append(Running(tmp_path, where, OUT=str(tmp_path / "out"), **places))
        return made[-1]

    yield start
    for one in made:
        one.__exit__(None, None, None)


class Seen:
    """Everything that looks like a passphrase in /proc of any process, and in the open files of a run."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.found: set[bytes] = set()

    def look(self) -> None:
        for name in os.listdir("/proc"):
            if name.isdigit():
                for file in ("cmdline", "environ", "comm"):
                    self.found.update(MADE.findall(read(f"/proc/{name}/{file}")))
        temporary = Path(self._running.environment["TMPDIR"])
        for path in [*temporary.rglob("*"), *(link for pid in marked(self._running.mark) for link in opened(pid))]:
            try:
                self.found.update(MADE.findall(regular(path)))
            except OSError:
                continue  # it has gone meanwhile


def passphrase_of(archive: Path, identity: Path) -> bytes:
    """The passphrase that was made for an archive."""
    found = bash(f"tar -xOf {archive} qb-key.age | age -d -i {identity}").stdout
    assert MADE.fullmatch(found)
    return found


@pytest.mark.parametrize("place", ["argument", "environment", "file"])
def test_the_watch_sees_what_it_looks_for(place: str, folder: Path, running: Callable[[Path], Running]) -> None:
    shown = "2222" + "abcdefgh" * 6
    texts = {
        "argument": f"exec -a {shown} sleep 60",
        "environment": f"SHOWN={shown} exec sleep 60",
        "file": f"exec 3<>$TMPDIR/x; printf %s {shown[:20]} >&3; printf %s {shown[20:]} >&3; rm $TMPDIR/x; sleep 60",
    }
    run = running(folder)
    run.start(texts[place])
    seen = Seen(run)

    def found() -> bool:
        seen.look()
        return shown.encode() in seen.found

    wait_until(found, "what is shown")


@pytest.mark.parametrize("way", SAVING)
def test_the_machine_that_saves_cannot_open(
    way: str, folder: Path, identity: Path, running: Callable[[Path], Running], tmp_path: Path
) -> None:
    run = running(folder)
    if way == "to a file":
        run.hold_in("vm1/root.img", 3000000)
    before = sorted(os.listdir(folder))
    seen = Seen(run)
    with Watch(seen.look):
        run.start(SAVING[way])
        run.hold()
        seen.look()
        assert run.processes("qb-seal")
        run.release()
        assert run.end() == (0, "")
    made = passphrase_of(tmp_path / "out", identity)
    assert made not in seen.found
    assert sorted(os.listdir(folder)) == before
    assert os.listdir(tmp_path / "tmp") == os.listdir(tmp_path / "home") == []
    nothing_opens(tmp_path / "out", made, folder, tmp_path)


def nothing_opens(archive: Path, made: bytes, *places: Path) -> None:
    """No file in these places contains the passphrase, or opens the archive as an identity or as a passphrase."""
    files = [path for place in places for path in place.rglob("*") if path.is_file() and path != archive]
    assert files
    assert not [path for path in (*files, archive) if made in path.read_bytes()]
    for path in files:
        if path.stat().st_size < 1 << 16:
            assert run("qb-header", "read", "--any-writer", "-i", path, archive).returncode != 0
            assert run("qb-header", "read", "--passphrase-file", path, archive).returncode != 0


@pytest.mark.parametrize("way", OPENING)
def test_the_programs_that_open_do_not_show_the_passphrase(
    way: str, opening: Path, running: Callable[[Path], Running], tmp_path: Path
) -> None:
    run = running(opening)
    if "valve" not in OPENING[way]:
        run.hold_in("vm1/root.img", 3000000)
    seen = Seen(run)
    with Watch(seen.look):
        run.start(OPENING[way])
        run.hold()
        seen.look()
        run.release()
        assert run.end() == (0, "")
    assert passphrase_of(opening / "backup.qb", opening / "identity") not in seen.found
    assert os.listdir(tmp_path / "tmp") == os.listdir(tmp_path / "home") == []


TRACED = ("execve", "write", "writev", "pwrite64", "sendto", "sendmsg")


def test_the_passphrase_goes_through_pipes_alone(folder: Path, identity: Path, tmp_path: Path) -> None:
    """For every call of every process: it is only written to pipes."""
    need("strace")
    if run("strace", "-o", "/dev/null", "true").returncode:
        missing("strace may not trace here")
    trace = f"strace -f -yy -s 4096 -v -o {tmp_path}/trace -e trace={','.join(TRACED)}"
    create = f"qb-backup create -q -R to --key-command 'tr a-z2-7 2-7a-z' -o {tmp_path}/out vm1:root={tmp_path}/small"
    (tmp_path / "small").write_bytes(b"small")
    done = bash(f"cd {folder}; {trace} {create}")
    assert (done.returncode, done.stderr) == (0, b"")
    made = passphrase_of(tmp_path / "out", identity).decode()
    lines = [line for line in (tmp_path / "trace").read_text(errors="replace").splitlines() if made in line]
    assert len(lines) >= 2, "age and the command have read it"
    assert not [line for line in lines if not re.search(r" write\(\d+<pipe:", line)]


# --- core dumps ---

HOLDING = {
    "qb-seal": "valve 1000000 <root.img | qb-seal --opaque -R to a >$OUT",
    "qb-unseal": "valve 1000000 <$OPENING/backup.qb | qb-unseal --any-writer -i $OPENING/identity --verify",
    "qb-header": "valve 700 <$OPENING/backup.qb | qb-header read --any-writer -i $OPENING/identity -",
    "qb-key show": "valve 700 <$OPENING/backup.qb | qb-key show --any-writer -i $OPENING/identity >$OUT",
    "qb-key rewrap": "valve 700 <$OPENING/backup.qb | qb-key rewrap -i $OPENING/identity -R to >$OUT",
}
"""Pipes that stop when the program has the passphrase, or is about to ask for it."""


@pytest.mark.parametrize("program", HOLDING)
def test_no_core_dump_holds_the_passphrase(
    program: str, folder: Path, opening: Path, running: Callable[[Path], Running]
) -> None:
    run = running(folder)
    run.environment["OPENING"] = str(opening)
    run.start(f"ulimit -c unlimited; {HOLDING[program]}")
    run.hold()
    pid = run.one(program.split()[0])
    wait_until(lambda: limits(pid) == ["0", "unlimited"], "the limit")
    os.kill(pid, signal.SIGABRT)
    run.release()
    _status, errors = run.end()
    assert "Aborted" in errors and "core dumped" not in errors


@pytest.mark.parametrize("direction", ["sealing", "opening"])
def test_the_programs_that_wrap_dump_no_core_either(
    direction: str, folder: Path, opening: Path, running: Callable[[Path], Running], tmp_path: Path
) -> None:
    run = running(folder)
    age = shutil.which("age", path=environment()["PATH"])
    run.program("age", f'#!/bin/bash\nulimit -S -c >"{tmp_path}/limit"\nexec {age} "$@"\n')
    sealing = "qb-seal -q --opaque -R to --key-command 'ulimit -S -c >$OUT; cat' a <to >/dev/null"
    opens = f"qb-backup verify --any-writer -i {opening}/identity {opening}/backup.qb"
    run.start(f"ulimit -c unlimited; {sealing if direction == 'sealing' else opens}")
    assert run.end() == (0, "")
    assert (tmp_path / "limit").read_text() == "0\n"
    if direction == "sealing":
        assert (tmp_path / "out").read_text() == "0\n"
