"""qb-backup: volumes are restored to another place or another kind; states when they are saved."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from devices import file_system, loop, make_sparse
from manual import examples, section
from running import OF_FILE, Running
from support import run

MIB = 1 << 20
SIZE = 4 * MIB
ROOT_DATA, PRIVATE_DATA, OTHER_DATA = (letter * 8192 for letter in (b"r", b"p", b"o"))
ROOT, PRIVATE, OTHER = (data + bytes(SIZE - 8192) for data in (ROOT_DATA, PRIVATE_DATA, OTHER_DATA))
SHOWS = "hint: qb-backup list shows what it has"
SECRET = {"QB_PASSPHRASE_COMMAND": "echo secret"}


def backup(*words: str | Path, data: bytes = b"", folder: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """Runs qb-backup with a passphrase."""
    where = ["env", "-C", str(folder)] if folder else []
    return run(*where, "qb-backup", *words, data=data, **SECRET)


def good(done: subprocess.CompletedProcess[bytes]) -> None:
    assert (done.returncode, done.stdout) == (0, b""), done.stderr


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """vm-1 with root and private, other with root."""
    place = tmp_path_factory.mktemp("volumes")
    words = []
    for domain, volume, data in (
        ("vm-1", "root", ROOT_DATA),
        ("vm-1", "private", PRIVATE_DATA),
        ("other", "root", OTHER_DATA),
    ):
        path = make_sparse(place / f"{domain}.{volume}", SIZE, (0, data))
        words.append(f"{domain}:{volume}={path}")
    done = backup("create", "-q", "--logn=10", *words)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def content(place: Path) -> dict[str, bytes]:
    """All files below a directory."""
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_to_a_directory(archive: bytes, tmp_path: Path) -> None:
    good(backup("restore", "--to", "here", data=archive, folder=tmp_path))
    assert content(tmp_path) == {
        "here/vm-1/root.img": ROOT,
        "here/vm-1/private.img": PRIVATE,
        "here/other/root.img": OTHER,
    }


def test_to_a_pool(archive: bytes, tmp_path: Path) -> None:
    good(backup("restore", f"--pool=file:{tmp_path}", data=archive))
    assert content(tmp_path) == {"vm-1-root": ROOT, "vm-1-private": PRIVATE, "other-root": OTHER}
    done = backup("restore", f"--pool=file:{tmp_path}", data=archive)
    message = f"qb-backup: error: {tmp_path}/vm-1-root already exists\nhint: --overwrite replaces it\n"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (5, b"", message)
    good(backup("restore", "--overwrite", f"--pool=file:{tmp_path}", data=archive))


def test_some_volumes_elsewhere(archive: bytes, tmp_path: Path) -> None:
    """To a device, which is another kind and larger, and to a file with many special characters in its name."""
    (tmp_path / "disk").write_bytes(b"x" * (SIZE + MIB))
    strange = tmp_path / "a b='$x'=\"y\""
    with loop(tmp_path / "disk") as device:
        words = [f"--map=vm-1:root={device}", "--map", f"other:root={strange}"]
        done = backup("restore", *words, f"--to={tmp_path}/to", data=archive)
        message = (
            f"qb-backup: error: {device} already exists\nhint: --overwrite writes over the content of the device\n"
        )
        assert (done.returncode, done.stdout, done.stderr.decode()) == (5, b"", message)
        strange.unlink(missing_ok=True)
        good(backup("restore", "--overwrite", *words, f"--to={tmp_path}/to", data=archive))
        assert device.read_bytes() == ROOT + bytes(MIB)
    (tmp_path / "disk").unlink()
    assert content(tmp_path) == {strange.name: OTHER, "to/vm-1/private.img": PRIVATE}


def test_all_wanted_volumes_mapped(archive: bytes, tmp_path: Path) -> None:
    good(backup("restore", "--only=other", f"--map=other:root={tmp_path}/v", data=archive))
    assert content(tmp_path) == {"v": OTHER}


def test_nothing_is_written_when_a_volume_has_no_place(archive: bytes, tmp_path: Path) -> None:
    for words, message in (
        (
            [f"--map=vm-1:root={tmp_path}/v"],
            "no target given for vm-1:private\nhint: use --to, --pool or --map",
        ),
        ([f"--map=vm-1:rot={tmp_path}/v", f"--to={tmp_path}"], f"the archive has no volume vm-1:rot\n{SHOWS}"),
        ([f"--map=m-1:root={tmp_path}/v", f"--to={tmp_path}"], f"the archive has no volume m-1:root\n{SHOWS}"),
        (["--only=vm-2", f"--to={tmp_path}"], f"the archive has no domain vm-2\n{SHOWS}"),
    ):
        done = backup("restore", *words, data=archive)
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr.decode() == f"qb-backup: error: {message}\n"
        assert content(tmp_path) == {} and os.listdir(tmp_path) == []


def test_usage(tmp_path: Path) -> None:
    for words, message in (
        ([], "no target given: --to, --pool or --map is missing"),
        ([f"--to={tmp_path}", "--pool=x"], "--to and --pool exclude each other"),
        (["--map=root=x"], "--map: not DOMAIN:VOLUME=TARGET: root=x"),
        (["--map=a:root="], "--map: not DOMAIN:VOLUME=TARGET"),
        (["--map=a:root=x\ny"], "--map: not DOMAIN:VOLUME=TARGET"),
        (["--map=a:root=x", "--map=a:root=y"], "--map: a:root is given twice"),
        (["--state=current", "--pool=x"], "--state does not go with restore"),
    ):
        done = backup("restore", *words)
        assert (done.returncode, done.stdout) == (2, b"") and message in done.stderr.decode()


def test_no_trace_of_the_listing_stays(archive: bytes, tmp_path: Path) -> None:
    """Not even after SIGKILL. The stages end, too, and the archive is not treated as one without metadata."""
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    (tmp_path / "a.qb").write_bytes(archive)
    with Running(tmp_path, XDG_RUNTIME_DIR=str(runtime), **SECRET) as running:
        running.program("igzip", OF_FILE + 'gzip -dc | { [ "$QB_NAME" = qubes.xml ] || exec valve 10; cat; }\n')
        running.start(f"exec qb-backup restore --to {tmp_path}/to a.qb")
        running.hold()
        assert os.listdir(runtime) == []
        os.kill(running.one("qb-run"), signal.SIGKILL)
        running.gone()
    assert os.listdir(runtime) == []
    assert content(tmp_path / "to") == {}


def test_a_runtime_directory_that_is_not_there(archive: bytes, tmp_path: Path) -> None:
    """With sudo there may still be one in the environment."""
    done = run("qb-backup", "restore", f"--to={tmp_path}", data=archive, XDG_RUNTIME_DIR=f"{tmp_path}/none", **SECRET)
    good(done)
    assert content(tmp_path)["other/root.img"] == OTHER


def test_shrinking(archive: bytes, tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(b"x" * (SIZE + 1))
    words = ["restore", "--overwrite", "--only=other", f"--map=other:root={tmp_path}/v"]
    done = backup(*words, data=archive)
    assert done.returncode == 5 and b"--shrink lets it become smaller" in done.stderr
    assert [line.split(b": ")[0] for line in done.stderr.splitlines()] == [b"qb-backup", b"hint"]
    assert (tmp_path / "v").stat().st_size == SIZE + 1
    done = backup(*words, "--shrink", data=archive)
    assert (done.returncode, done.stderr.count(b" shrinks from ")) == (0, 1)
    assert (tmp_path / "v").read_bytes() == OTHER


# --- saving ---


def test_a_volume_in_use(tmp_path: Path) -> None:
    path = make_sparse(tmp_path / "vm.img", SIZE, (0, ROOT_DATA))
    with path.open("r+b"):
        done = backup("create", "-q", "--logn=10", path)
        assert done.returncode == 5
        assert done.stderr.startswith(b"qb-volread: error: ") and b"is in use" in done.stderr
        assert [line.split(b": ")[0] for line in done.stderr.splitlines()] == [b"qb-volread", b"hint"]
        assert b"qb-manifest" not in done.stdout
        for state in "current", "'; false; '":
            done = backup("create", "-q", "--logn=10", f"--state={state}", path)
            assert done.returncode == (0 if state == "current" else 2), done.stderr
    with file_system(tmp_path, "xfs", 512 * MIB) as place:
        path = make_sparse(place / "vm.img", SIZE, (0, ROOT_DATA))
        with path.open("r+b"):
            for words in [path], ["--state=snapshot", "--cow=5%", f"file:{path}"]:
                done = backup("create", "-q", "--logn=10", *words)
                assert (done.returncode, done.stderr) == (0, b"")
                listed = backup("list", data=done.stdout)
                assert listed.stdout.decode().startswith(f"vm\tStandaloneVM\troot\tvm1/root.img\t{SIZE}\n")


def test_a_machine_that_runs_saved_as_the_manual_has_it(tmp_path: Path) -> None:
    virsh = tmp_path / "virsh"
    virsh.write_text(f'#!/bin/sh\nsync; ls -A | wc -l >> {tmp_path}/log; echo "$@" >> {tmp_path}/log\n')
    virsh.chmod(0o755)
    recipe = section("qb-snapshot.1", "EXAMPLES")[0].replace("vg/vm1-root /srv/vm1-private.img", "root.img private.img")
    assert recipe == examples("qbtools.7")["in-use"]
    recipe = recipe.replace("qb-backup create", "qb-backup create -q --logn 10")
    with file_system(tmp_path, "btrfs", 512 * MIB) as place:
        for name, data in ("root.img", ROOT_DATA), ("private.img", PRIVATE_DATA):
            make_sparse(place / name, SIZE, (0, data))
        for before in 2, 3:
            with (place / "root.img").open("r+b"), (place / "private.img").open("r+b"):
                done = run("bash", "-c", f"cd {place}; PATH={tmp_path}:$PATH\n{recipe}", **SECRET)
            assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
            log = [str(before), "domfsfreeze", "vm1", str(before + 2), "domfsthaw", "vm1"]
            assert (tmp_path / "log").read_text().split() == log
            (tmp_path / "log").unlink()
        assert sorted(os.listdir(place)) == ["private.img", "root.img", "vm1.qb"]
        good(backup("restore", "--to", tmp_path / "back", place / "vm1.qb"))
    assert content(tmp_path / "back") == {"vm1/root.img": ROOT, "vm1/private.img": PRIVATE}
