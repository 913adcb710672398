"""qb-backup: all targets and outputs are checked before the first byte is read or written."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from devices import file_system, loop, make_sparse
from hostdirs import make_host
from support import run

SIZE = 1 << 20
A, B, C = (letter * 8192 + bytes(SIZE - 8192) for letter in (b"a", b"b", b"c"))
SECRET = {"QB_PASSPHRASE_COMMAND": "echo secret"}


def backup(*words: str | Path) -> subprocess.CompletedProcess[bytes]:
    return run("qb-backup", *words, **SECRET)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """web:data-x, web-data:x and Web:data-x."""
    place = tmp_path_factory.mktemp("volumes")
    words = []
    for key, data in (("web:data-x", A), ("web-data:x", B), ("Web:data-x", C)):
        path = make_sparse(place / key.replace(":", "."), SIZE, (0, data[:8192]))
        words.append(f"{key}={path}")
    done = backup("create", "-q", "--logn=10", "-o", place / "a.qb", *words)
    assert done.returncode == 0, done.stderr
    return place / "a.qb"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def content(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def refused(done: subprocess.CompletedProcess[bytes], message: str, status: int = 5) -> None:
    """One line of error, by qb-backup itself, and nothing else."""
    lines = [line for line in done.stderr.decode().splitlines() if not line.startswith("hint: ")]
    assert (done.returncode, done.stdout, len(lines)) == (status, b"", 1), done.stderr
    assert lines[0].startswith("qb-backup: error: ") and message in lines[0]


SAME = "have the same target"


def test_two_volumes_with_one_target(archive: Path, place: Path) -> None:
    """Whatever is done with targets that exist."""
    for over, *words in (
        ["", f"--pool=file:{place}"],
        ["--overwrite", f"--pool=file:{place}"],
        ["--overwrite", "--only=web", "--only=web-data", "--map=web:data-x=x", "--map=web-data:x=./y/../x"],
        ["--skip-existing", "--to=.", "--map=web-data:x=./web/data-x.img"],
        ["", "--to=r", "--map=web-data:x=r/web/data-x.img"],
        ["", "--only=web", "--only=web-data", "--map=web:data-x=./r", "--map=web-data:x=./r/x", "--to=r"],
    ):
        refused(backup("restore", *[over] * bool(over), *words, archive), SAME)
        assert os.listdir(place) == []


def test_two_names_of_a_device(archive: Path, place: Path) -> None:
    (place / "disk").write_bytes(b"x" * SIZE)
    with loop(place / "disk") as device:
        (place / "link").symlink_to(device)
        words = ["--only=web", "--only=web-data", f"--map=web:data-x={device}", "--map=web-data:x=./link"]
        refused(backup("restore", "--overwrite", *words, archive), SAME)
        assert device.read_bytes() == b"x" * SIZE


def test_names_that_differ_in_letter_case_are_two_if_the_file_system_distinguishes_them(
    archive: Path, place: Path
) -> None:
    done = backup("restore", "--only=web", "--only=Web", "--to=here", archive)
    assert (done.returncode, done.stderr) == (0, b"")
    assert content(place / "here") == {"web/data-x.img": A, "Web/data-x.img": C}


def test_the_last_target_is_bad(archive: Path, place: Path) -> None:
    (place / "Web").mkdir()
    (place / "Web/data-x.img").write_bytes(b"mine")
    refused(backup("restore", "--to=.", archive), "data-x.img already exists")
    for target, status in (("nowhere/x", 2), ("./nowhere/x", 1), ("/proc/x", 1), ("./Web", 2)):
        words = ["--map=web:data-x=m1", "--map=web-data:x=m2", f"--map=Web:data-x={target}"]
        refused(backup("restore", *words, archive), target.removeprefix("./"), status)
    assert content(place) == {"Web/data-x.img": b"mine"} and os.listdir(place) == ["Web"]


def test_a_target_that_is_the_archive_or_the_passphrase(archive: Path, place: Path) -> None:
    (place / "a.qb").write_bytes(archive.read_bytes())
    (place / "secret").write_text("secret")
    (place / "secret").chmod(0o600)
    words = ["restore", "--overwrite", "--shrink", "--only=web"]
    refused(backup(*words, "--map=web:data-x=./a.qb", "a.qb"), "cannot be written over the archive")
    done = run("bash", "-c", f"qb-backup {' '.join(words)} --map=web:data-x=a.qb <a.qb", **SECRET)
    refused(done, "cannot be written over the archive")
    done = backup(*words, "--map=web:data-x=secret", "--passphrase-file=secret", "a.qb")
    refused(done, "cannot be written over the passphrase")


def test_what_is_missing_is_restored(archive: Path, place: Path) -> None:
    """After an interrupted run, and again when nothing is missing."""
    assert backup("restore", "--only=web", "--to=t", archive).returncode == 0
    before = (place / "t/web/data-x.img").stat()
    for _ in range(2):
        done = backup("restore", "--skip-existing", "--to=t", archive)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert content(place / "t") == {"web/data-x.img": A, "web-data/x.img": B, "Web/data-x.img": C}
    assert os.path.samestat(before, (place / "t/web/data-x.img").stat())
    (place / "t/web/data-x.img").write_bytes(b"short")
    done = backup("restore", "--skip-existing", "--to=t", archive)
    assert done.returncode == 0 and b"is skipped, but it has 5 bytes" in done.stderr


def test_a_device_is_never_skipped(archive: Path, place: Path) -> None:
    (place / "disk").write_bytes(b"x" * SIZE)
    with loop(place / "disk") as device:
        words = ["--only=web", "--skip-existing", f"--map=web:data-x={device}"]
        refused(backup("restore", *words, archive), "is written in place, so it may be incomplete")


def test_an_archive_that_ends_too_early_is_no_success_if_everything_exists(archive: Path, place: Path) -> None:
    assert backup("restore", "--to=t", archive).returncode == 0
    (place / "cut").write_bytes(archive.read_bytes()[:-4096])
    assert backup("restore", "--skip-existing", "--to=t", "cut").returncode == 4


def test_no_directories_stay_after_a_failure(archive: Path, place: Path) -> None:
    data = bytearray(archive.read_bytes())
    at = data.index(b"vm1/data-x.img.000.enc")
    data[at + 700] ^= 1
    (place / "bad").write_bytes(data)
    assert backup("restore", "--to=t/u", "bad").returncode == 4
    assert os.listdir(place) == ["bad"]


def test_some_volumes_of_an_archive(archive: Path, place: Path) -> None:
    assert backup("restore", "--only=web:data-x", "--only=web-data", "--to=t", archive).returncode == 0
    assert content(place / "t") == {"web/data-x.img": A, "web-data/x.img": B}
    refused(backup("restore", "--only=web:x", "--to=u", archive), "the archive has no volume web:x", 2)


def test_a_file_system_that_is_too_small(place: Path) -> None:
    """This is found before the first volume is written, although that volume would fit."""
    words = []
    for name in ("one", "two"):
        (place / name).write_bytes(os.urandom(6 << 20))
        words.append(f"{name}:root={place / name}")
    assert backup("create", "-q", "--logn=10", "-o", "a.qb", *words).returncode == 0
    with file_system(place, "ext4", 10 << 20) as small:
        refused(backup("restore", f"--to={small}/t", "a.qb"), "not enough room for ")
        assert os.listdir(small) == ["lost+found"]


def limited(blocks: int, *words: str) -> subprocess.CompletedProcess[bytes]:
    """qb-backup, which may write files of so many blocks of 1 KiB."""
    return run("bash", "-c", f'ulimit -f {blocks}; exec qb-backup "$@"', "bash", *words, **SECRET)


def test_a_volume_that_no_file_can_hold_is_found_before_the_first_byte(archive: Path, place: Path) -> None:
    """As on vfat, which has no files of 4 GiB."""
    refused(limited(1023, "restore", "--to=t", str(archive)), "cannot extend", 1)
    assert os.listdir(place) == []
    assert limited(1024, "restore", "--to=t", str(archive)).returncode == 0


def test_a_warning_if_no_file_can_hold_as_much_as_is_read(place: Path) -> None:
    (place / "v").write_bytes(b"x" * SIZE)
    done = limited(512, "create", "-q", "--logn=10", "-o", "a.qb", "v:root=v")
    assert done.returncode == 0 and b"a.qb cannot grow to the 1048576 bytes" in done.stderr
    done = limited(1024, "create", "-q", "--logn=10", "-o", "b.qb", "v:root=v")
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_sparse_volume_needs_no_room_for_its_holes(place: Path) -> None:
    make_sparse(place / "v", 64 << 20, (0, b"x" * 8192))
    assert backup("create", "-q", "--logn=10", "-o", "a.qb", f"v:root={place}/v").returncode == 0
    with file_system(place, "ext4", 10 << 20) as small:
        done = backup("restore", f"--to={small}/t", "a.qb")
        assert done.returncode == 0 and b"there may not be enough room" in done.stderr


# --- outputs of create ---


@pytest.mark.parametrize("words", [["v:root=missing"], ["--host=dir:missing"]])
def test_an_output_that_cannot_be_written_is_found_before_anything_is_read(words: list[str], place: Path) -> None:
    """The volume does not exist: a run that reads it first would report that."""
    (place / "gone").symlink_to("nowhere/x")
    (place / "dir.qb.partial").mkdir()
    for output, message, status in (
        ("none/a.qb", "none/a.qb", 1),
        ("gone", "gone already exists", 5),
        ("/proc/a.qb", "/proc/a.qb", 1),
        ("dir.qb", "dir.qb.partial already exists", 5),
    ):
        refused(backup("create", "-q", "--logn=10", "-o", output, *words), message, status)
    refused(
        backup("create", "-q", "--logn=10", "-o", "a.qb", "--id-file", "none/id", *words), "cannot write none/id", 1
    )


def test_two_outputs_that_are_one(place: Path) -> None:
    (place / "v").write_bytes(A)
    for side in ("a.qb", "./a.qb", "a.qb.partial", "v"):
        done = backup("create", "-q", "--logn=10", "-o", "a.qb", "--id-file", side, "v:root=v")
        refused(done, f"--id-file {side} is the same file as ")
        assert content(place) == {"v": A}


# --- with a host ---


def test_some_volumes_to_a_host(archive: Path, place: Path) -> None:
    """The domain is created; unwanted volumes are named, and stay empty."""
    (place / "v").write_bytes(A)
    (place / "w").write_bytes(B)
    assert (
        backup("create", "-q", "--logn=10", "-o", "vm.qb", "vm:root=v", "vm:private=w", "other:root=w").returncode == 0
    )
    make_host(place / "H", ())
    done = backup("restore", "--yes", "--host=dir:H", "--only=vm:private", "vm.qb")
    assert done.returncode == 0, done.stderr
    assert b"vm:root is not among --only: it stays empty" in done.stderr
    assert (place / "H/vm/private.img").read_bytes() == B
    assert (place / "H/vm/root.img").read_bytes() == bytes(SIZE)
    assert sorted(path.name for path in (place / "H").iterdir() if path.is_dir()) == ["vm"]
    refused(backup("restore", "--yes", "--host=dir:H", "--only=vm:x", "vm.qb"), "the archive has no volume vm:x", 2)
    (place / "file").touch()
    for files_to, message in (("file", "cannot write to file: Not a directory"), ("/proc", "cannot write to /proc")):
        done = backup("restore", "--yes", "--host=dir:H", f"--files-to={files_to}", "vm.qb")
        refused(done, message, 1)
