"""Calls that fail, too few descriptors, writers that are killed: if a volume is missing, the status is not 0.

Such a run never hangs, and its output never looks complete.
"""

from __future__ import annotations

import errno
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from hostdirs import images, noise
from support import ROOT, environment, missing, run

LIMIT = 60.0
"""Seconds after which a run is taken for one that hangs."""

NAMES = ("vm1", "vm2")


class Place(NamedTuple):
    """A folder with a volume, an archive of two, a passphrase, and the library that lets calls fail."""

    folder: Path
    library: Path
    listing: bytes

    def run(
        self, *words: str | Path, fault: str = "", seen: Path | None = None, limit: int = 0
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs qb-backup. fault: for tests/inject.c. limit: for descriptors."""
        changes = {"QB_PASSPHRASE_FILE": str(self.folder / "passphrase")}
        if fault:
            changes.update(LD_PRELOAD=str(self.library), QB_FAULT=fault, QB_FAULT_SEEN=str(seen))
        ulimit = f"ulimit -n {limit}; " if limit else ""
        return subprocess.run(
            ["bash", "-c", f'{ulimit}exec "$@"', "-", "qb-backup", *map(str, words)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=self.folder,
            env=environment(**changes),
            timeout=LIMIT,
            start_new_session=True,
            check=False,
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    if shutil.which("gcc") is None:
        missing("the program gcc is not there")
    folder = tmp_path_factory.mktemp("faults")
    library = folder / "inject.so"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, ROOT / "tests/inject.c", "-ldl"], check=True)
    (folder / "a.img").write_bytes(noise("a", 200_000))
    (folder / "passphrase").write_text("faults\n")
    (folder / "passphrase").chmod(0o600)
    found = Place(folder, library, b"")
    done = create(found, folder / "good.qb")
    assert (done.returncode, done.stderr) == (0, b"")
    return found._replace(listing=found.run("list", "good.qb").stdout)


def create(place: Place, archive: Path, **how: object) -> subprocess.CompletedProcess[bytes]:
    volumes = [f"{name}:root=a.img" for name in NAMES]
    words = ("create", "-q", "--logn=10", "--chunk-size=64K", "-o", archive, *volumes)
    return place.run(*words, **how)  # type: ignore[arg-type]


def check(place: Place, tmp_path: Path, command: str, **how: object) -> int:
    """Runs a command and compares its output with its status, which is returned."""
    if command == "create":
        archive = tmp_path / "x.qb"
        status = create(place, archive, **how).returncode
        assert archive.exists() == (status == 0)
        if not status:
            assert place.run("verify", "-q", archive).returncode == 0
            assert place.run("list", archive).stdout == place.listing
    elif command == "to":
        status = place.run("restore", "-q", "--to", tmp_path / "out", "good.qb", **how).returncode  # type: ignore[arg-type]
        good = (place.folder / "a.img").read_bytes()
        found = [path.read_bytes() == good for path in (tmp_path / "out").rglob("*.img") if path.name == "root.img"]
        assert all(found), "whatever has its name is whole"
        assert status or len(found) == len(NAMES)
    elif command == "host":
        (tmp_path / "host").mkdir()
        words = ("restore", "-q", "--yes", f"--host=dir:{tmp_path}/host", "good.qb")
        status = place.run(*words, **how).returncode  # type: ignore[arg-type]
        good = (place.folder / "a.img").read_bytes()
        assert status or images(tmp_path / "host") == {f"{name}/root.img": good for name in NAMES}
    else:
        status = place.run("verify", "-q", "good.qb", **how).returncode  # type: ignore[arg-type]
    return status


COMMANDS = ("create", "to", "host", "verify")


@pytest.mark.parametrize("command", ["create", "host"])
def test_without_a_fault(command: str, place: Place, tmp_path: Path) -> None:
    """Everything also succeeds with the library."""
    assert check(place, tmp_path, command, fault="nobody:read:1:5", seen=tmp_path / "seen") == 0
    assert not (tmp_path / "seen").exists()


@pytest.mark.parametrize("limit", [8, 17, 32])
@pytest.mark.parametrize("command", COMMANDS)
def test_few_descriptors(command: str, limit: int, place: Place, tmp_path: Path) -> None:
    status = check(place, tmp_path, command, limit=limit)
    assert status in ((0,) if limit == 32 else (0, 1)), "the machine failed, not the archive"


OF_SAVING = ("qb-run", "qb-seal", "qb-store")
OF_OPENING = ("qb-run", "qb-unseal", "qb-tarextract")
CASES = [
    *((command, program) for command in ("create",) for program in OF_SAVING),
    *(("to", program) for program in OF_OPENING),
    ("to", "qb-volwrite"),
    ("host", "qb-run"),
    ("host", "qb-host-dir"),
]


CALLS = {"readp": errno.EIO, "writep": errno.EPIPE, "pipe": errno.ENFILE, "open": errno.EMFILE}
# qb-store writes to no pipe, and a stage goes on without the pipe that wakes it: one of them stands for all. The first
# files that a program opens are the interpreter's, whatever its command is.
NEEDLESS = {
    ("create", "qb-store", "writep"),
    *(
        (command, program, "pipe")
        for command, program in CASES
        if program in ("qb-store", "qb-volwrite", "qb-host-dir")
    ),
    *((command, "qb-run", "open") for command in ("to", "host")),
}


@pytest.mark.parametrize(
    ("command", "program", "call"),
    [(*case, call) for case in CASES for call in CALLS if (*case, call) not in NEEDLESS],
)
def test_a_call_that_fails(command: str, program: str, call: str, place: Place, tmp_path: Path) -> None:
    """In every process of a program, from the first call on, then from the second."""
    for at in (1,) if call == "open" else (1, 2):
        folder = tmp_path / str(at)
        folder.mkdir()
        seen = folder / "seen"
        status = check(place, folder, command, fault=f"{program}:{call}:{at}:{CALLS[call]}", seen=seen)
        assert seen.exists() or status == 0
        if not status:  # it never calls it, or it does not matter to it: then the second call does not either
            return


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("call", ["fork", "pipe", "readp"])
def test_a_bash_that_cannot_go_on(command: str, call: str, place: Place, tmp_path: Path) -> None:
    """The one that wires the stages."""
    seen = tmp_path / "seen"
    status = check(place, tmp_path, command, fault=f"qb-backup:{call}:1:{errno.ENOMEM}", seen=seen)
    assert (status != 0) == seen.exists() or call == "readp"


@pytest.mark.parametrize(
    "words",
    [
        ("qb-seal", "--opaque", "-q", "--logn=10", "--from-command", "cat $QB_SOURCE", "-"),
        ("qb-unseal", "-q", "--to-command", "cat >/dev/null", "--routes", "/dev/stdin"),
    ],
)
@pytest.mark.parametrize("text", [b"", b"vm1/root.img\tx\n", b"vm1/root.img\tx\nen", b"vm1/root.img\tx\nend"])
def test_a_list_whose_writer_was_killed(words: tuple[str, ...], text: bytes, place: Place) -> None:
    """By hand: a truncated list is not accepted as complete."""
    changes = {"QB_PASSPHRASE_FILE": str(place.folder / "passphrase")}
    if words[0] == "qb-unseal":
        (place.folder / "routes").write_bytes(text)
        words = (*words[:-1], str(place.folder / "routes"))
        text = (place.folder / "good.qb").read_bytes()
    done = run(*words, data=text, timeout=LIMIT, **changes)
    assert done.returncode == 4, done.stderr
