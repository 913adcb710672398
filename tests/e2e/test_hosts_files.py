"""Files that are not volumes: the home of dom0 and other files of domains, saved and extracted."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from devices import mounted
from hostdirs import Machine, inventory, make_host, not_restored
from support import bash, need, need_root, run

SECRET = {"QB_PASSPHRASE_COMMAND": "echo files"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host with a home and further files, and an archive of it, a.qb."""
    need("tar")
    place = tmp_path_factory.mktemp("files")
    host = make_host(
        place / "A",
        [
            Machine("work", data={"private": b"p"}, files={"firewall.xml": b"<fire/>", "notes.txt": b"notes\n"}),
            Machine("bare", "DispVM", {"template": "work", "include_in_backups": "True"}, files={"notes.txt": b"bare"}),
            Machine("empty", "DispVM", {"include_in_backups": "True"}),
        ],
    )
    home = host / "dom0/user"
    (home / ".config").mkdir(parents=True)
    (home / ".config/settings").write_bytes(b"settings" * 1000)
    (home / "bin").symlink_to("/usr/bin")
    (home / "script").write_bytes(b"#!/bin/sh\n")
    (home / "script").chmod(0o755)
    os.link(home / "script", home / "again")
    assert create(place, "dom0", "work", "bare", "empty") == (0, "", "")
    return place


def create(place: Path, *words: str) -> tuple[int, str, str]:
    done = run(
        "qb-backup", "create", "-q", "--logn=10", f"--host={place}/A", f"--output={place}/a.qb", *words, **SECRET
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def restore(archive: Path, place: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Into the host B in place, files to F there."""
    for name in ("B", "F"):
        (place / name).mkdir(exist_ok=True)
    more = () if "--dry-run" in words else ("--yes", "-q")
    where = (f"--host={place}/B", f"--files-to={place}/F")
    return run("qb-backup", "restore", *more, *where, "--ignore-missing", *words, archive, **SECRET)


@pytest.mark.parametrize(("status", "expected"), [(1, 0), (2, 1)])
def test_a_home_that_changes_while_it_is_saved(folder: Path, tmp_path: Path, status: int, expected: int) -> None:
    """GNU tar then ends with 1 and names the file; any other status is a failure."""
    (tmp_path / "bin").mkdir()
    tar = tmp_path / "bin/tar"
    tar.write_text(f'#!/bin/sh\n/bin/tar "$@" && echo "tar: changed" >&2 && exit {status}\n')
    tar.chmod(0o755)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    out = tmp_path / "a.qb"
    words = ("--logn=10", f"--host={folder}/A", f"--output={out}", "dom0", "empty")
    done = run("qb-backup", "create", *words, **SECRET, PATH=path)
    said = b"".join(line for line in done.stderr.splitlines(True) if b": backup ID " not in line)
    words = {
        0: b"qb-tree: warning: changed\n",
        1: f"qb-tree: error: {folder}/A/dom0/user was not saved completely: changed\n".encode(),
    }
    assert (done.returncode, said.splitlines(True)[0]) == (expected, words[expected])
    assert out.exists(), "the other domain is saved"
    assert (b"Qubes OS" in said.splitlines()[-1]) == bool(expected)


def tree(place: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(place)): b"-> " + os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        for path in place.rglob("*")
        if path.is_symlink() or path.is_file()
    }


HOME = {
    "dom0-home/user/.config/settings": b"settings" * 1000,
    "dom0-home/user/bin": b"-> /usr/bin",
    "dom0-home/user/script": b"#!/bin/sh\n",
    "dom0-home/user/again": b"#!/bin/sh\n",
}
FURTHER = {"work/firewall.xml": b"<fire/>", "work/notes.txt": b"notes\n", "bare/notes.txt": b"bare"}


def test_they_are_in_the_archive(folder: Path) -> None:
    members = bash(f"tar -tf {folder}/a.qb").stdout.decode().split()
    assert "dom0-home/user.000.enc" in members and "vm1/firewall.xml.000.enc" in members
    assert [name for name in members if "empty" in name] == ["vm3/empty.000.enc"]
    done = run("qb-backup", "verify", folder / "a.qb", **SECRET)
    assert (done.returncode, done.stderr) == (0, b"")


def test_all_of_them(folder: Path, tmp_path: Path) -> None:
    done = restore(folder / "a.qb", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert tree(tmp_path / "F") == {**HOME, **FURTHER}
    assert set(inventory(tmp_path / "B")) == {"work", "bare", "empty"}
    assert os.path.samefile(tmp_path / "F/dom0-home/user/script", tmp_path / "F/dom0-home/user/again")
    assert stat.S_IMODE((tmp_path / "F/dom0-home/user/script").stat().st_mode) & 0o111


def test_without_the_option_none(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "B").mkdir()
    words = ("--yes", "-q", "--ignore-missing", f"--host={tmp_path}/B")
    done = run("qb-backup", "restore", *words, folder / "a.qb", **SECRET)
    assert (done.returncode, done.stderr.decode()) == (0, not_restored("dom0-home/user, and 2 more"))
    assert set(inventory(tmp_path / "B")) == {"work", "bare", "empty"}
    assert not (tmp_path / "B/work/firewall.xml").exists()
    done = run("qb-backup", "restore", *words, "--only=work:private", folder / "a.qb", **SECRET)
    assert done.returncode == 0 and b"not restored" not in done.stderr, "nothing else is wanted"


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (("--exclude", "work"), ("dom0-home/", "bare/")),
        (("--include", "dom0", "--include", "bare"), ("dom0-home/", "bare/")),
        (("--rename", "work=play", "--include", "w*"), ("play/",)),
    ],
)
def test_those_of_what_is_restored(
    words: tuple[str, ...], files: tuple[str, ...], folder: Path, tmp_path: Path
) -> None:
    done = restore(folder / "a.qb", tmp_path, *words)
    assert (done.returncode, done.stderr) == (0, b"")
    expected = {name.replace("work/", "play/") if "play/" in files else name for name in {**HOME, **FURTHER}}
    assert set(tree(tmp_path / "F")) == {name for name in expected if name.startswith(files)}


@pytest.mark.parametrize("there", ["dom0-home/user/mine", "work/notes.txt"])
@pytest.mark.parametrize("going", [False, True])
def test_existing_files_stay(there: str, going: bool, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "F" / there
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    done = restore(folder / "a.qb", tmp_path, *(["--keep-going"] if going else []))
    place = tmp_path / "F" / ("dom0-home/user" if "home" in there else there)
    error = f"qb-tree: error: {place} already exists"
    if not going:
        error = f"qb-backup: error: {place if 'home' in there else f'{place.parent} is not empty'}"
        error += " already exists" if "home" in there else ""
    left = "dom0-home/user was not restored" if "home" in there else "vm1/notes.txt was not restored"
    first, *rest = done.stderr.decode().splitlines()
    assert (done.returncode, first) == (5, error)
    hint = [] if "home" in there else ["hint: the further files of the domain go there"]
    assert rest == ([f"qb-backup: warning: {left}"] if going else hint)
    if not going:
        assert not (tmp_path / "B/qubes.xml").exists(), "it is found before any domain is made"
        assert restore(folder / "a.qb", tmp_path, "--verify-only").stderr == done.stderr
    assert path.read_bytes() == b"mine"
    if going:
        expected = {name: data for name, data in {**HOME, **FURTHER}.items() if not name.startswith(there[:14])}
        assert tree(tmp_path / "F") == {**expected, there: b"mine"}
        assert set(inventory(tmp_path / "B")) == {"work", "bare", "empty"}
    assert not [name for name in os.listdir(tmp_path / "F") if name.startswith(".")]


@pytest.mark.parametrize("there", ["dom0-home", "work"])
def test_a_directory_that_cannot_be_written(there: str, folder: Path, tmp_path: Path) -> None:
    """An empty one, so that every file could have its place."""
    place = tmp_path / "F" / there
    place.parent.mkdir()
    with mounted(place, "none", "tmpfs", "-o", "ro"):
        done = restore(folder / "a.qb", tmp_path)
    assert (done.returncode, done.stderr.decode()) == (
        1,
        f"qb-backup: error: cannot write to {place}: Read-only file system\n",
    )
    assert not (tmp_path / "B/qubes.xml").exists(), "it is found before any domain is made"


def test_a_file_where_the_directory_of_the_home_would_be(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "F").mkdir()
    (tmp_path / "F/dom0-home").write_text("mine")
    for words in ((), ("--verify-only",)):
        done = restore(folder / "a.qb", tmp_path, *words)
        assert (done.returncode, done.stderr.decode()) == (
            1,
            f"qb-backup: error: cannot write to {tmp_path}/F/dom0-home: Not a directory\n",
        )
    assert not (tmp_path / "B/qubes.xml").exists()


@pytest.fixture(scope="module")
def left(folder: Path) -> Path:
    """A host with the domains that a dead run has made."""
    (folder / "left").mkdir()
    made = bash(
        f"cd {folder} && qb-unseal qubes.xml <a.qb | gzip -dc | qb-tarextract --raw >xml && words='--host=left "
        "--metadata xml' && qb-plan $words --ignore-missing >plan && qb-host apply $words --owner $$ plan",
        **SECRET,
    )
    assert made.returncode == 0, made.stderr
    return folder / "left"


@pytest.mark.parametrize("listed", [True, False])
def test_what_a_dead_run_has_left_is_no_obstacle(listed: bool, folder: Path, left: Path, tmp_path: Path) -> None:
    """The directory of the host is the one for the files, too."""
    shutil.copytree(left, tmp_path / "B")
    host = f"--host={tmp_path}/B"
    (tmp_path / "B/work/notes.txt").write_bytes(b"half")
    mark = inventory(tmp_path / "B")["work"].findtext("features/feature[@name='qbtools-unfinished']")
    if not listed:
        (tmp_path / "B/qubes.xml").unlink()
        for name in ("work", "bare", "empty"):
            (tmp_path / f"B/{name}/.qbtools-unfinished.{mark}").touch()
    words = ("--yes", "-q", host, f"--files-to={tmp_path}/B", "--exclude=dom0", "--ignore-missing")
    done = run("qb-backup", "restore", *words, folder / "a.qb", **SECRET)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "B/work/notes.txt").read_bytes() == b"notes\n"


@pytest.fixture(scope="module")
def sealed_again(folder: Path) -> Path:
    """The beginning of an archive with the metadata, and its other files, so that they can be joined in other ways."""
    made = bash(
        f"mkdir {folder}/again && cd {folder}/again && id=$(qb-header id) && printf %s $id >id &&"
        " { qb-header write --no-manifest --logn 10 --backup-id $id && qb-unseal qubes.xml <../a.qb |"
        " qb-seal --logn 10 --backup-id $id qubes.xml; } >head &&"
        " for name in vm1/root.img vm1/private.img vm2/notes.txt vm3/empty; do qb-unseal $name <../a.qb |"
        " qb-seal --logn 10 --backup-id $id $name >${name//\\//_} || exit; done",
        **SECRET,
    )
    assert (made.returncode, made.stderr) == (0, b"")
    return folder / "again"


def hostile(pieces: Path, place: Path, tar: str) -> Path:
    """The archive with another content of dom0-home/user: the output of the shell text."""
    made = bash(
        f"cd {place} && mkdir -p t/dom0-home/user && (cd t && {tar}) | gzip -c |"
        f" qb-seal --opaque --logn 10 --backup-id $(<{pieces}/id) dom0-home/user >home && cd {pieces} &&"
        f" cat head {place}/home vm1_* vm2_* vm3_* >{place}/h.qb && head -c 10240 /dev/zero >>{place}/h.qb",
        **SECRET,
    )
    assert (made.returncode, made.stderr) == (0, b"")
    return place / "h.qb"


@pytest.mark.parametrize(
    ("tar", "message", "words"),
    [
        (
            "touch x && tar -c --transform 's,^x,dom0-home/user/../../../x,' -P x",
            "qb-tree: error: dom0-home/user/../../../x leads out of dom0-home/user",
            ["--include=dom0"],
        ),
        (
            "touch x && tar -c --transform 's,^x,/tmp/qb-hostile,' -P x",
            "qb-tree: error: the archive has no member dom0-home/user",
            ["--include=dom0"],
        ),
        ("echo no tar", "qb-unseal: error: dom0-home/user: qb-tree: standard input ends too early", []),
    ],
)
def test_a_home_that_is_refused(tar: str, message: str, words: list[str], sealed_again: Path, tmp_path: Path) -> None:
    """test_tree.py has all kinds. Machines that were made before it are removed."""
    need_root()
    archive = hostile(sealed_again, tmp_path, tar)
    done = run("qb-backup", "verify", archive, **SECRET)
    assert (done.returncode, done.stderr.decode().splitlines()[-1]) == (4, message)
    done = restore(archive, tmp_path, *words)
    assert (done.returncode, done.stderr.decode()) == (4, f"{message}\n")
    assert tree(tmp_path / "F") == {}
    assert os.listdir(tmp_path / "B") == [] if words else inventory(tmp_path / "B") == {}
    assert not Path("/tmp/qb-hostile").exists() and not (tmp_path / "x").exists()


def test_rights_of_other_users_are_not_given(sealed_again: Path, tmp_path: Path) -> None:
    need_root()
    file = "dom0-home/user/su"
    tar = f"touch {file} && chown 1234:1234 {file} && chmod 6755 {file} && tar -c dom0-home"
    done = restore(hostile(sealed_again, tmp_path, tar), tmp_path, "--include=dom0")
    assert done.returncode in (0, 1)
    (found,) = (path.stat() for path in (tmp_path / "F").rglob("su"))
    assert found.st_uid == os.geteuid() and not found.st_mode & 0o6000


def test_a_link_that_leads_out_is_not_followed(sealed_again: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    tar = (
        f"ln -s {tmp_path}/out dom0-home/user/l && tar -c dom0-home >../one.tar && rm dom0-home/user/l &&"
        " mkdir dom0-home/user/l && touch dom0-home/user/l/x && tar -c dom0-home/user/l/x >../two.tar &&"
        " cat <(head -c -10240 ../one.tar) <(tar -cf - dom0-home/user/l) | cat - ../two.tar"
    )
    restore(hostile(sealed_again, tmp_path, tar), tmp_path, "--include=dom0")
    assert os.listdir(tmp_path / "out") == []


def test_files_in_further_directories_are_refused(sealed_again: Path, tmp_path: Path) -> None:
    """A link at the place of another domain's directory would lead its files out."""
    (tmp_path / "out").mkdir()
    made = bash(
        f"cd {tmp_path} && mkdir -p t/vm1/x && ln -s {tmp_path}/out t/vm1/x/bare && tar -c -C t vm1/x/bare | gzip -c |"
        f" qb-seal --logn 10 --backup-id $(<{sealed_again}/id) vm1/x/bare >more && cd {sealed_again} &&"
        f" cat head {tmp_path}/more vm1_* vm2_* vm3_* >{tmp_path}/h.qb && head -c 10240 /dev/zero >>{tmp_path}/h.qb",
        **SECRET,
    )
    assert (made.returncode, made.stderr) == (0, b"")
    done = restore(tmp_path / "h.qb", tmp_path, "--keep-going", "--exclude", "dom0")
    said = [line for line in done.stderr.splitlines() if b": warning: " not in line]
    assert (done.returncode, said) == (4, [b"qb-backup: error: vm1/x/bare is not a file of a domain"])
    assert os.listdir(tmp_path / "out") == []
    assert tree(tmp_path / "F") == {"bare/notes.txt": b"bare"}


def test_a_home_that_is_a_link(sealed_again: Path, tmp_path: Path) -> None:
    tar = "rmdir dom0-home/user && ln -s /tmp dom0-home/user && tar -c dom0-home/user"
    done = restore(hostile(sealed_again, tmp_path, tar), tmp_path, "--include=dom0")
    message = b"qb-tree: error: dom0-home/user is a symbolic link, neither a file nor a directory\n"
    assert (done.returncode, done.stderr) == (4, message)
    assert tree(tmp_path / "F") == {}


def test_what_is_not_saved_is_said(tmp_path: Path) -> None:
    host = make_host(tmp_path / "A", [Machine("work"), Machine("other")])
    for name in ("work/my notes", "work/Größe.txt", "work/data.img", "other/a b", "new/root.img", "dom0/user/f"):
        (host / name).parent.mkdir(parents=True, exist_ok=True)
        (host / name).write_text("data")
    (host / "work/keys").mkdir()
    (host / "work/keys/k").write_text("key")
    os.mkfifo(host / "work/keys/fifo")
    (host / "dom0/user/mount").mkdir()
    expected = {f"{host}/{name}" for name in ("work/my notes", "work/Größe.txt", "work/data.img", "new")}
    inside = f"{host}/dom0/user/mount"
    words = ("create", "--logn=10", f"--host={host}", "dom0", "work")
    with tmpfs_on(Path(inside)):
        shown = run("qb-backup", *words, "--dry-run", **SECRET)
        listed = run("qb-backup", *words, "--dry-run", "--json", **SECRET)
        done = run("qb-backup", *words, "--json", "-o", tmp_path / "a.qb", **SECRET)
    assert (shown.returncode, listed.returncode, done.returncode) == (0, 0, 0)
    lines = [line.removeprefix("left out: ") for line in shown.stdout.decode().splitlines() if "left out: " in line]
    assert {line.partition(" (")[0] for line in lines} == {"other", inside, *expected}
    for answer in (listed, done):
        found = {one["name"]: one for one in json.loads(answer.stdout)["left_out"]}
        assert set(found) == {"other", inside, *expected}
        assert found[f"{host}/new"] == {
            "name": f"{host}/new",
            "domain": None,
            "reason": "no domain in qubes.xml has it",
        }
        assert found[inside]["domain"] == "dom0"
    said = done.stderr.decode()
    for path in expected:
        assert f"qb-backup: warning: {path} is left out: " in said
    assert f"qb-tree: warning: {inside} is left out: another file system is mounted there\n" in said
    assert said.count(" is left out: ") == 5
    done = restore(tmp_path / "a.qb", tmp_path, "--include=work")
    assert (done.returncode, tree(tmp_path / "F")) == (0, {"work/keys/k": b"key"})


@contextmanager
def tmpfs_on(place: Path) -> Iterator[None]:
    need_root()
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("words", [("--include", "dom0"), ("--exclude", "work", "--exclude", "bare", "--exclude=e*")])
def test_the_home_alone(words: tuple[str, ...], folder: Path, tmp_path: Path) -> None:
    done = restore(folder / "a.qb", tmp_path, *words, "--verify-only")
    assert (done.returncode, done.stderr, os.listdir(tmp_path / "F")) == (0, b"", [])
    done = restore(folder / "a.qb", tmp_path, *words, "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    (found,) = json.loads(done.stdout)["domains"]
    assert (found["name"], found["volumes"], found["problem"]) == ("dom0", 0, None)
    assert tree(tmp_path / "F") == HOME
    assert os.listdir(tmp_path / "B") == []


def test_an_archive_of_nothing_but_the_home(tmp_path: Path) -> None:
    (tmp_path / "A/dom0/user").mkdir(parents=True)
    (tmp_path / "A/dom0/user/file").write_text("mine")
    assert create(tmp_path, "dom0") == (0, "", "")
    archive = tmp_path / "a.qb"
    shown = restore(archive, tmp_path, "--dry-run")
    assert (shown.returncode, shown.stderr) == (0, b"")
    done = run("qb-backup", "restore", "--to", tmp_path / "to", archive, **SECRET)
    assert (done.returncode, done.stderr.decode().splitlines()) == (
        5,
        ["qb-backup: error: no volume to restore", "hint: --host and --files-to restore the home of dom0"],
    )
    done = run("qb-backup", "restore", "--yes", f"--host={tmp_path}/B", archive, **SECRET)
    assert (done.returncode, done.stderr.decode().splitlines()) == (
        2,
        ["qb-backup: error: no target given for the home of dom0", "hint: use --files-to"],
    )
    done = restore(archive, tmp_path, "--exclude", "dom0")
    assert (done.returncode, done.stderr.count(b"error: ")) == (5, 1)
    done = restore(archive, tmp_path)
    assert (done.returncode, done.stderr, tree(tmp_path / "F")) == (0, b"", {"dom0-home/user/file": b"mine"})
    for words in ((), ("--verify-only",)):
        done = restore(archive, tmp_path, *words)
        assert done.returncode == 5
        assert f"{tmp_path}/F/dom0-home/user already exists" in done.stderr.decode()


def test_an_archive_without_a_home(folder: Path, tmp_path: Path) -> None:
    made = run(
        "qb-backup", "create", "-q", "--logn=10", f"--host={folder}/A", "-o", tmp_path / "b.qb", "empty", **SECRET
    )
    assert made.returncode == 0
    done = restore(tmp_path / "b.qb", tmp_path, "--include", "dom0")
    assert (done.returncode, done.stderr.decode().splitlines()[0]) == (
        2,
        "qb-backup: error: the archive has no home of dom0",
    )


@pytest.mark.parametrize(
    ("tar", "message"),
    [
        (
            "mkdir dom0-home/user/a && mknod dom0-home/user/a/disk b 7 0 && tar -c dom0-home",
            "dom0-home/user/a/disk is a block device",
        ),
        ("touch dom0-home/user/f && tar -c dom0-home dom0-home/user/f", "dom0-home/user/f occurs twice"),
    ],
)
def test_what_a_restore_refuses_is_found_before(tar: str, message: str, sealed_again: Path, tmp_path: Path) -> None:
    need_root()
    archive = hostile(sealed_again, tmp_path, tar)
    for done in (
        run("qb-backup", "verify", "-q", archive, **SECRET),
        restore(archive, tmp_path, "--verify-only", "--include=dom0"),
        restore(archive, tmp_path, "--include=dom0"),
    ):
        assert done.returncode == 4
        assert f"qb-tree: error: {message}" in done.stderr.decode()
    assert tree(tmp_path / "F") == {}


@pytest.mark.parametrize(
    ("name", "node", "text"),
    [("vm1/keys", "c 1 3", "is a character device"), ("vm1/x/y", "p", "is not a file of a domain")],
)
def test_a_further_file_that_a_restore_refuses(
    name: str, node: str, text: str, sealed_again: Path, tmp_path: Path
) -> None:
    """A device in a directory of a domain, and a file in a directory of the archive."""
    need_root()
    made = bash(
        f"cd {tmp_path} && mkdir -p t/{name} && mknod t/{name}/null {node} && tar -c -C t {name} | gzip -c |"
        f" qb-seal --logn 10 --backup-id $(<{sealed_again}/id) {name} >more && cd {sealed_again} &&"
        f" cat head vm1_* {tmp_path}/more vm2_* vm3_* >{tmp_path}/h.qb && head -c 10240 /dev/zero >>{tmp_path}/h.qb",
        **SECRET,
    )
    assert (made.returncode, made.stderr) == (0, b"")
    for done in (
        run("qb-backup", "verify", "-q", tmp_path / "h.qb", **SECRET),
        restore(tmp_path / "h.qb", tmp_path, "--include=work", "--verify-only"),
        restore(tmp_path / "h.qb", tmp_path, "--include=work"),
    ):
        assert done.returncode == 4
        assert text in done.stderr.decode()
    assert tree(tmp_path / "F") == {}
