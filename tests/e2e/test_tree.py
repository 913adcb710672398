"""qb-tree with the real tar: homes saved and extracted, hostile or broken archives, nothing left behind."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from devices import file_system, mounted, tmpfs
from running import Running, wait_until
from support import BIN, bash, environment, missing, need, need_root, run
from vectors.tarbytes import END, GNU, extended, head, old, pax, regular

from qbtools.volumes.marks import Mark

NAME = "dom0-home/user"
INNER = NAME.encode()


def fake_tar(place: Path, text: str) -> str:
    """A PATH with this tar in front."""
    folder = place / "programs"
    folder.mkdir(exist_ok=True)
    (folder / "tar").write_text(f"#!/bin/bash\n{text}\n")
    (folder / "tar").chmod(0o755)
    return f"{BIN}:{folder}:{environment()['PATH']}"


def open_the_way(place: Path) -> None:
    """Lets other users reach place."""
    for parent in (place, *place.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with one of each."""
    place = tmp_path / "source" / "-home of a user"
    place.mkdir(parents=True)
    (place / "file").write_bytes(b"content")
    (place / "hard").hardlink_to(place / "file")
    (place / "link").symlink_to("file")
    (place / "absolute").symlink_to("/etc/passwd")
    (place / "nowhere").symlink_to("../../no/such")
    (place / "empty").mkdir()
    (place / "-rf").write_text("an option")
    (place / "a b\nc").write_text("a strange name")
    (place / ("n" * 200)).write_text("a long name")
    (place / "\udcff").write_text("no UTF-8")
    (place / "script").write_text("#!/bin/sh\n")
    (place / "script").chmod(0o755)
    os.mkfifo(place / "fifo")
    with (place / "sparse").open("wb") as file:
        file.truncate(8 << 20)
        file.seek(4 << 20)
        file.write(b"x")
    return place


def tree(place: Path) -> dict[str, tuple[int, bytes | str]]:
    """Mode and content of everything below."""
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in [place, *sorted(place.rglob("*"))]:
        status = path.lstat()
        content: bytes | str = b""
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(place))] = status.st_mode, content
    return found


def saved(home: Path) -> bytes:
    done = run("qb-tree", home, NAME)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def extract(data: bytes, path: Path, **changes: str) -> subprocess.CompletedProcess[bytes]:
    return run("qb-tree", "--extract", path, NAME, data=data, **changes)


def refused(done: subprocess.CompletedProcess[bytes], status: int, message: str) -> None:
    assert (done.returncode, done.stdout) == (status, b""), done.stderr
    assert done.stderr.decode() == f"qb-tree: error: {message}\n"


# --- there and back ---


def test_there_and_back(home: Path, tmp_path: Path) -> None:
    data = saved(home)
    assert len(data) < 1 << 20, "holes are not in it"
    done = extract(data, tmp_path / "to/the/place")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert tree(tmp_path / "to/the/place") == tree(home)
    assert os.listdir(tmp_path / "to/the") == ["place"]
    made = tmp_path / "to/the/place"
    assert (made / "file").stat().st_ino == (made / "hard").stat().st_ino
    assert (made / "sparse").stat().st_blocks * 512 < 1 << 20


def test_what_is_saved_is_what_the_shell_saved(home: Path) -> None:
    words = ["tar", "-c", "--sparse", "--one-file-system", "-C", home, f"--transform=flags=rhS;s|^\\.|{NAME}|", "."]
    assert saved(home) == run(*words).stdout
    assert run("qb-tarextract", "--list", data=saved(home)).returncode == 0


def test_words_that_look_like_options(home: Path, tmp_path: Path) -> None:
    done = bash(f"cd {tmp_path}/source && qb-tree -- '-home of a user' {NAME} >../a && cd .. && "
                f"qb-tree --extract -- -to {NAME} <a && qb-tree --extract -- --/-to/ {NAME} <a")  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert tree(tmp_path / "-to") == tree(tmp_path / "--/-to") == tree(home)


def test_a_single_file(tmp_path: Path) -> None:
    data = regular(b"other", b"dom0-home/user2") + regular(b"this", INNER) + END
    assert extract(data, tmp_path / "f").returncode == 0
    assert (tmp_path / "f").read_bytes() == b"this"
    assert os.listdir(tmp_path) == ["f"]


def test_only_that_name_is_taken(tmp_path: Path) -> None:
    others = regular(b"1", b"dom0-home/user2") + regular(b"2", b"dom0-home/use") + head(b"etc/", kind=b"5")
    data = others + head(INNER + b"/", kind=b"5") + regular(b"3", INNER + b"/x") + regular(b"4", b"y/" + INNER) + END
    assert extract(data, tmp_path / "f").returncode == 0
    assert os.listdir(tmp_path / "f") == ["x"] and os.listdir(tmp_path) == ["f"]


def test_a_special_pattern_in_a_name_means_itself(tmp_path: Path) -> None:
    for name in ("a.b", "a@b", "a+b"):
        (tmp_path / "s").mkdir(exist_ok=True)
        listed = bash(f"qb-tree {tmp_path}/s {name} | tar -t").stdout.decode()
        assert listed == f"{name}/\n"


@pytest.mark.parametrize("name", ["", "/etc", "../x", "-x", "a//b", "a b", "a/", "qb-manifest", "a|b", "."])
def test_names_that_cannot_be_used(name: str, tmp_path: Path) -> None:
    for words in ((tmp_path, name), ("--extract", tmp_path / "new", name)):
        done = run("qb-tree", *words[:-1], "--", words[-1]) if name == "-x" else run("qb-tree", *words)
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", ["", "/", "..", "."])
def test_places_that_cannot_be_made(path: str) -> None:
    done = run("qb-tree", "--extract", path, NAME, data=regular(b"x", INNER) + END)
    assert done.returncode == 2
    assert b"cannot be the name of a file" in done.stderr


# --- saving that fails ---


def test_what_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(run("qb-tree", tmp_path / "no", NAME), 1, f"cannot read {tmp_path}/no: No such file or directory")
    refused(run("qb-tree", tmp_path / "file", NAME), 1, f"cannot read {tmp_path}/file: Not a directory")


def test_a_file_that_changes_is_a_warning(home: Path, tmp_path: Path) -> None:
    """GNU tar says so with status 1."""
    path = fake_tar(tmp_path, 'echo "tar: ./file: file changed as we read it" >&2; /bin/tar "$@"; exit 1')
    done = run("qb-tree", home, NAME, PATH=path)
    assert (done.returncode, done.stdout) == (0, saved(home))
    assert done.stderr == b"qb-tree: warning: ./file: file changed as we read it\n"
    assert run("qb-tree", "-q", home, NAME, PATH=path).stderr == done.stderr


def test_a_file_that_really_changes(tmp_path: Path) -> None:
    place = tmp_path / "home"
    place.mkdir()
    with (place / "log").open("wb") as file:
        file.truncate(64 << 20)
    with Running(tmp_path) as running:
        # Not sparse for tar, which reads all of a file that has blocks; the valve holds it in the middle.
        (place / "log").write_bytes(os.urandom(8 << 20))
        running.start(f"qb-tree {place} {NAME} | valve 100000 >{tmp_path}/a")
        running.hold()
        with (place / "log").open("ab") as file:
            file.write(b"more")
        running.release()
        status, errors = running.end()
    assert (status, errors) == (0, "qb-tree: warning: ./log: file changed as we read it\n")
    assert extract((tmp_path / "a").read_bytes(), tmp_path / "back").returncode == 0


@pytest.mark.parametrize(
    ("text", "warnings", "error"),
    [
        ("exit 2", [], "tar ended with status 2"),
        ("echo tar: why >&2; exit 2", [], "why"),
        ("echo tar: why >&2; echo tar: all in all >&2; exit 2", [], "why"),
        ("for i in 1 2 3 4; do echo tar: $i >&2; done; exit 2", ["1", "2"], "3"),
        ("echo tar: words >&2; kill -KILL $$", [], "tar was killed by SIGKILL"),
    ],
)
def test_a_directory_that_is_not_saved_as_a_whole(
    text: str, warnings: list[str], error: str, home: Path, tmp_path: Path
) -> None:
    done = run("qb-tree", home, NAME, PATH=fake_tar(tmp_path, f'/bin/tar "$@"; {text}'))
    lines = [f"qb-tree: warning: {line}" for line in warnings]
    lines.append(f"qb-tree: error: {home} was not saved completely: {error}")
    assert (done.returncode, done.stderr.decode().splitlines()) == (1, lines)
    # tar has written the end of the archive, but it is not accepted as complete.
    assert done.stdout.startswith(saved(home)) and any(done.stdout[-10:])
    assert run("qb-tarextract", "--list", data=done.stdout).returncode == 4
    assert extract(done.stdout, tmp_path / "x").returncode == 4


def test_a_file_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    need_root()
    open_the_way(tmp_path)
    home = tmp_path / "home"
    (home / "closed").mkdir(parents=True)
    (home / "closed/inside").touch()
    (home / "closed").chmod(0o700)
    (home / "secret").touch(0o600)
    (home / "open").write_text("open")
    done = bash(f"setpriv --reuid 65534 --clear-groups qb-tree {home} {NAME} >{tmp_path}/a")
    warnings = [
        f"qb-tree: warning: {home}/{name} is left out: cannot be read: Permission denied"
        for name in ("secret", "closed")
    ]
    assert (done.returncode, done.stderr.decode().splitlines()) == (0, warnings)
    assert names_in((tmp_path / "a").read_bytes()) == [f"{NAME}/", f"{NAME}/open"]


def test_a_file_that_only_tar_cannot_read(tmp_path: Path) -> None:
    need_root()
    open_the_way(tmp_path)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/secret").touch(0o600)
    text = """exec setpriv --reuid 65534 --clear-groups bash -c 'exec -a tar /bin/tar "$@"' - "$@" """
    path = fake_tar(tmp_path, text)
    done = run("qb-tree", tmp_path / "home", NAME, PATH=path)
    assert done.returncode == 1
    assert b"was not saved completely: ./secret: Cannot open: Permission denied\n" in done.stderr


ODD = ("plain", "a b", "blank at the end ", "a\nb", "back\\slash", "[x]*", "\udcff", "-x", "Größe")


def test_sockets_and_devices_are_left_out(tmp_path: Path) -> None:
    """Each with a warning, whatever its name; files with nearly the same names are saved."""
    need_root()
    home = tmp_path / "home"
    home.mkdir()
    for name in ODD:
        (home / "sub" / name).mkdir(parents=True)
        os.mknod(home / name, stat.S_IFCHR | 0o600, os.makedev(0, 0))
        (home / f"{name}x").write_text("saved")
    os.mknod(home / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 0))
    (home / "[x]*").rename(home / "[y]*")
    (home / "yz").write_text("saved")
    here = os.getcwd()
    os.chdir(home)  # a socket's path has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind("socket")
    finally:
        os.chdir(here)
    done = run("qb-tree", home, NAME)
    assert done.returncode == 0
    said = done.stderr.decode("utf-8", "surrogateescape")
    assert said.count("is left out: a character device\n") == len(ODD) == said.count("character")
    assert f"qb-tree: warning: {home}/socket is left out: a socket\n" in said
    assert f"qb-tree: warning: {home}/disk is left out: a block device\n" in said
    assert f"{home}/a\\nb is left out" in said
    assert said.count("\n") == len(ODD) + 2
    made = tmp_path / "back"
    again = extract(done.stdout, made)
    assert (again.returncode, again.stderr) == (0, b"")
    assert sorted(os.listdir(made)) == sorted(["sub", "yz", *(f"{name}x" for name in ODD)])
    assert sorted(os.listdir(made / "sub")) == sorted(ODD)


def names_in(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [f"{member.name}/" if member.isdir() else member.name for member in tar]


def test_a_reader_that_leaves(home: Path) -> None:
    (home / "large").write_bytes(os.urandom(3 << 20))
    done = bash(f"qb-tree '{home}' {NAME} | head -c 10 >/dev/null; echo ${{PIPESTATUS[0]}}")
    assert (done.stdout, done.stderr) == (b"141\n", b"")


def test_saving_on_a_full_disk(home: Path) -> None:
    done = bash(f"qb-tree '{home}' {NAME} >/dev/full")
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"No space left on device" in done.stderr


@pytest.mark.parametrize("name", ["mount", "a b", "a\nb", "a\\b", "end "])
def test_other_file_systems_are_left_out(name: str, tmp_path: Path) -> None:
    place = tmp_path / "home" / name
    place.parent.mkdir()
    with tmpfs(place, 1 << 20):
        (place / "secret").touch()
        (tmp_path / "home/other").touch()
        done = run("qb-tree", tmp_path / "home", NAME)
    assert names_in(done.stdout) == [f"{NAME}/", f"{NAME}/other"]
    shown = str(place).replace("\n", "\\n")
    said = f"qb-tree: warning: {shown} is left out: another file system is mounted there\n"
    assert (done.returncode, done.stderr.decode()) == (0, said)


def test_a_file_system_that_is_dead(tmp_path: Path) -> None:
    """Its server has ended, so not even root can read it."""
    need_root()
    place = tmp_path / "home/remote"
    place.mkdir(parents=True)
    (tmp_path / "home/file").write_text("saved")
    if not os.path.exists("/dev/fuse"):
        missing("there is no /dev/fuse")
    fd = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0"
    words = ["mount", "--internal-only", "--types", "fuse", "--options", options, "none", str(place)]
    subprocess.run(words, pass_fds=[fd], check=True)
    os.close(fd)
    try:
        with pytest.raises(OSError, match="not connected"):
            place.stat()
        done = run("qb-tree", tmp_path / "home", NAME)
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
    said = f"qb-tree: warning: {place} is left out: another file system is mounted there\n"
    assert (done.returncode, done.stderr.decode()) == (0, said)
    assert names_in(done.stdout) == [f"{NAME}/", f"{NAME}/file"]


@pytest.mark.parametrize("how", ["nested", "mounted"])
def test_subvolumes_are_saved(how: str, tmp_path: Path) -> None:
    need("btrfs")
    with file_system(tmp_path, "btrfs", 200 << 20) as place:
        home = place / "home"
        home.mkdir()
        made = home / "projects" if how == "nested" else place / "projects"
        subprocess.run(["btrfs", "subvolume", "create", made], check=True, stdout=subprocess.DEVNULL)
        (made / "thesis").write_text("important")
        if how == "nested":
            done = run("qb-tree", home, NAME)
        else:
            device = run("findmnt", "-n", "-o", "SOURCE", place).stdout.decode().strip()
            with mounted(home / "projects", device, "btrfs", "-o", "subvol=projects"):
                done = run("qb-tree", home, NAME)
    assert (done.returncode, done.stderr) == (0, b"")
    assert names_in(done.stdout) == [f"{NAME}/", f"{NAME}/projects/", f"{NAME}/projects/thesis"]


def test_binary_data_is_not_written_to_a_terminal(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    done = subprocess.run(
        ["qb-tree", tmp_path, NAME], stdout=theirs, stderr=subprocess.PIPE, env=environment(), check=False
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 2 and b"refusing to write binary data to a terminal" in done.stderr


# --- extracting ---


@pytest.mark.parametrize("there", ["file", "directory", "link", "nowhere"])
def test_nothing_that_exists_is_touched(there: str, tmp_path: Path) -> None:
    path = tmp_path / "t"
    if there == "file":
        path.write_text("theirs")
    elif there == "directory":
        path.mkdir()
    else:
        (tmp_path / "other").mkdir()
        path.symlink_to("other" if there == "link" else "no-such")
    before = sorted(os.listdir(tmp_path))
    # Before the first byte: nothing comes, and it says so all the same.
    ours, theirs = os.pipe()
    done = subprocess.run(
        ["qb-tree", "--extract", path, NAME],
        stdin=ours,
        capture_output=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    os.close(ours)
    os.close(theirs)
    refused(done, 5, f"{path} already exists")
    assert sorted(os.listdir(tmp_path)) == before
    assert not path.is_dir() or os.listdir(path) == []


def hard(name: bytes, target: bytes) -> bytes:
    block = bytearray(head(name, kind=b"1", magic=GNU))
    block[157 : 157 + len(target)] = target
    return summed(block)


def link(name: bytes, target: bytes) -> bytes:
    block = bytearray(head(name, kind=b"2", magic=GNU))
    block[157 : 157 + len(target)] = target
    return summed(block)


def mode(member: bytes, bits: int) -> bytes:
    block = bytearray(member)
    block[100:108] = b"%07o\0" % bits
    return summed(block)


def summed(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


TOP = head(INNER + b"/", kind=b"5")
TOP = mode(TOP, 0o755)
FILE = regular(b"content", INNER + b"/file")
PAX = extended(b"1024 comment=" + b"x" * 1010 + b"\n")
BAD = {
    "cut before the end": (TOP + FILE, "standard input ends too early"),
    "half an end": (TOP + FILE + bytes(512), "standard input ends too early"),
    "cut in a file": ((TOP + FILE)[:-100], "standard input ends too early"),
    "cut in a header": (TOP + FILE[:100], "standard input ends too early"),
    "nothing": (b"", "standard input is empty: did the program before fail?"),
    "something behind": (TOP + FILE + END + bytes(9000) + b"x", "something follows the end of the archive"),
    "a second archive behind": (TOP + FILE + END + FILE + END, "something follows the end of the archive"),
    "no such name": (regular(b"x", b"dom0-home/other") + END, f"the archive has no member {NAME}"),
    "checksum": (TOP + head(INNER + b"/f", off=1) + END, "a tar header has a wrong checksum"),
    "a character device": (TOP + head(INNER + b"/c", kind=b"3") + END, f"{NAME}/c is a character device"),
    "a block device": (TOP + head(INNER + b"/b", kind=b"4") + END, f"{NAME}/b is a block device"),
    "a pax header that never ends": (TOP + head(b"x", 3 << 30, b"x"), f"a pax header of {3 << 30} bytes is too long"),
    "pax headers without end": (
        TOP + PAX * 2000 + FILE + END,
        "more than 16 extended headers stand in front of one member",
    ),
    "itself a device": (head(INNER, kind=b"4") + END, f"{NAME} is a block device"),
    "itself a link": (link(INNER, b"/etc") + END, f"{NAME} is a symbolic link, neither a file nor a directory"),
    "itself a pipe": (head(INNER, kind=b"6") + END, f"{NAME} is a fifo, neither a file nor a directory"),
    "a file twice": (TOP + FILE + FILE + END, f"{NAME}/file occurs twice"),
    "a file twice, in other words": (
        TOP + FILE + regular(b"x", INNER + b"/.//file") + END,
        f"{NAME}/file occurs twice",
    ),
    "a file where a directory is": (
        TOP + regular(b"x", INNER + b"/a/b") + regular(b"x", INNER + b"/a") + END,
        f"{NAME}/a occurs twice",
    ),
    "a hard link to nothing": (
        TOP + hard(INNER + b"/hard", INNER + b"/none") + FILE + END,
        f"{NAME}/hard is a hard link to {NAME}/none, which is not in front of it",
    ),
    "a hard link in front of its file": (
        TOP + hard(INNER + b"/hard", INNER + b"/file") + FILE + END,
        f"{NAME}/hard is a hard link to {NAME}/file, which is not in front of it",
    ),
    "a hard link to a file beside": (
        regular(b"x", b"dom0-home/other") + TOP + hard(INNER + b"/hard", b"dom0-home/other") + END,
        f"{NAME}/hard is a hard link to dom0-home/other, which is not in front of it",
    ),
    "a hard link to a directory": (
        TOP + hard(INNER + b"/hard", INNER) + END,
        f"{NAME}/hard is a hard link to {NAME}, which is not in front of it",
    ),
    "a hard link with a long target": (
        TOP + pax(("linkpath", f"{NAME}/{'p' * 150}")) + hard(INNER + b"/hard", INNER + b"/file") + END,
        f"{NAME}/hard is a hard link to {NAME}/{'p' * 150}, which is not in front of it",
    ),
    "a member below a symbolic link": (
        TOP + link(INNER + b"/way", b"/tmp") + regular(b"x", INNER + b"/way/file") + END,
        f"{NAME}/way/file is below {NAME}/way, which is no directory",
    ),
    "a member far below a file": (
        TOP + FILE + regular(b"x", INNER + b"/file/a/b/c") + END,
        f"{NAME}/file/a/b/c is below {NAME}/file, which is no directory",
    ),
    "a member below the file itself": (
        regular(b"x", INNER) + FILE + END,
        f"{NAME}/file is below {NAME}, which is no directory",
    ),
    "a name that Linux does not take": (
        TOP + pax(("path", f"{NAME}/{'p/' * 2048}x")) + regular(b"x") + END,
        f"a name below {NAME} has more than 4095 bytes",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_damage(kind: str, tmp_path: Path) -> None:
    data, message = BAD[kind]
    refused(extract(data, tmp_path / "to/the/place"), 4, message)
    assert os.listdir(tmp_path) == [], "the directories above are gone too"
    refused(run("qb-tree", "--verify", NAME, data=data), 4, message)


def test_headers_in_front_of_one_member_do_not_fill_the_memory_of_tar(tmp_path: Path) -> None:
    """tar keeps all of them."""
    (tmp_path / "archive").write_bytes(TOP + extended(b"1048576 comment=" + b"x" * 1048559 + b"\n") * 200 + FILE + END)
    words = ("qb-tree", "--extract", tmp_path / "to", NAME)
    with (tmp_path / "archive").open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, *map(str, words)], stdin=file, capture_output=True, env=environment()
        )
    peak, message = done.stderr.decode().split(maxsplit=1)
    assert (done.returncode, message.count("\n")) == (4, 1)
    assert int(peak) < 60 << 10


MEASURED = """
import resource, subprocess, sys
ended = subprocess.run(sys.argv[1:], capture_output=True)
sys.stderr.write(f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss} {ended.stderr.decode()}")
sys.exit(ended.returncode)
"""


@pytest.mark.parametrize("bits", [0o4755, 0o2755, 0o6711])
def test_the_rights_of_another_user(bits: int, tmp_path: Path) -> None:
    """tar itself removes these bits; if it did not, they would be found."""
    real = extract(TOP + mode(FILE[:512], bits) + FILE[512:] + END, tmp_path / "one")
    assert real.returncode in (0, 4)
    if real.returncode == 0:
        assert (tmp_path / "one/file").stat().st_mode & 0o7000 == 0
        shutil.rmtree(tmp_path / "one")
    path = fake_tar(tmp_path, f'cd "${{3#*=}}" && /bin/tar "$@" && chmod {bits:o} {NAME}/file')
    refused(
        extract(TOP + FILE + END, tmp_path / "x", PATH=path),
        4,
        f"{NAME}/file is a set-user-ID or set-group-ID file",
    )
    assert os.listdir(tmp_path) == ["programs"]


def test_devices_that_tar_makes_are_found(tmp_path: Path) -> None:
    need_root()
    path = fake_tar(tmp_path, f'/bin/tar "$@" && mknod "${{3#*=}}/{NAME}/sub/null" c 1 3')
    data = TOP + mode(head(INNER + b"/sub/", kind=b"5"), 0o755) + FILE + END
    refused(extract(data, tmp_path / "x", PATH=path), 4, f"{NAME}/sub/null is a device")
    assert os.listdir(tmp_path) == ["programs"]


def test_an_archive_cannot_write_elsewhere(tmp_path: Path) -> None:
    """Links that lead out, then members through them."""
    (tmp_path / "outside").mkdir()
    outside = f"{tmp_path}/outside".encode()
    assert len(outside) < 100
    up = b"../../../outside"
    for target in (outside, up):
        data = TOP + link(INNER + b"/way", target) + regular(b"evil", INNER + b"/way/file") + END
        done = extract(data, tmp_path / "x")
        assert done.returncode == 4 and done.stderr.count(b"\n") == 1
        assert sorted(os.listdir(tmp_path)) == ["outside"]
        data = TOP + link(INNER, target) + FILE + END
        assert extract(data, tmp_path / "x").returncode in (1, 4)
    (tmp_path / "outside/file").write_text("theirs")
    data = TOP + hard(INNER + b"/hard", outside + b"/file") + END
    assert extract(data, tmp_path / "x").returncode == 4
    data = TOP + regular(b"evil", INNER + b"/../../../outside/other") + END
    refused(extract(data, tmp_path / "x"), 4, f"{NAME}/../../../outside/other leads out of {NAME}")
    assert os.listdir(tmp_path) == ["outside"]
    assert os.listdir(tmp_path / "outside") == ["file"]
    assert (tmp_path / "outside/file").read_text() == "theirs"


def test_a_good_archive_is_checked(home: Path, tmp_path: Path) -> None:
    twice = TOP + FILE + hard(INNER + b"/one", INNER + b"/file") + hard(INNER + b"/two", b"/" + INNER + b"/one") + END
    assert extract(twice, tmp_path / "twice").returncode == 0
    shutil.rmtree(tmp_path / "twice")
    for data in (saved(home), TOP + TOP + FILE + END, regular(b"a file", INNER) + END, twice):
        done = run("qb-tree", "--verify", NAME, data=data)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert os.listdir(tmp_path) == ["source"]


def test_sparse_members_and_long_names(tmp_path: Path) -> None:
    sparse = old(4096, [(1024, 512), (4096, 0)], b"B" * 512)
    sparse = summed(bytearray((INNER + b"/s").ljust(100, b"\0") + sparse[100:512])) + sparse[512:]
    data = TOP + pax(("path", f"{NAME}/{'p' * 150}")) + regular(b"long") + sparse + END
    done = extract(data, tmp_path / "x")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "x" / ("p" * 150)).read_bytes() == b"long"
    assert (tmp_path / "x/s").read_bytes() == bytes(1024) + b"B" * 512 + bytes(2560)


@pytest.mark.parametrize("status", [1, 2, 143])
def test_a_tar_that_fails(status: int, tmp_path: Path) -> None:
    path = fake_tar(tmp_path, f'/bin/tar "$@"; exit {status}')
    refused(
        extract(TOP + FILE + END, tmp_path / "x", PATH=path),
        1,
        f"cannot extract {NAME}: tar ended with status {status}",
    )
    path = fake_tar(tmp_path, "exit 3")
    refused(
        extract(TOP + FILE + END + bytes(1 << 21), tmp_path / "x", PATH=path),
        1,
        f"cannot extract {NAME}: tar ended with status 3",
    )
    refused(
        extract(TOP + FILE + END, tmp_path / "x", PATH=fake_tar(tmp_path, "kill -KILL $$")),
        1,
        f"cannot extract {NAME}: tar was killed by SIGKILL",
    )
    assert os.listdir(tmp_path) == ["programs"]


def test_no_tar_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python3").write_text(f'#!/bin/sh\nexec {shutil.which("python3")} "$@"\n')
    (folder / "python3").chmod(0o755)
    for words in ((tmp_path, NAME), ("--extract", tmp_path / "x", NAME)):
        done = run("qb-tree", *words, PATH=f"{BIN}:{folder}")
        assert done.returncode == 1
        assert done.stderr == b"qb-tree: error: no tar in PATH\nhint: install the package tar\n"
    assert os.listdir(tmp_path) == ["bin"]


def test_the_environment_changes_nothing(home: Path, tmp_path: Path) -> None:
    data = saved(home)
    changes = {"TAR_OPTIONS": "--nonsense", "TAPE": "/dev/nonsense", "POSIXLY_CORRECT": "1"}
    assert run("qb-tree", home, NAME, **changes).stdout == data
    assert extract(data, tmp_path / "x", **changes).returncode == 0


def test_a_full_disk(tmp_path: Path) -> None:
    data = TOP + regular(os.urandom(2 << 20), INNER + b"/large") + FILE + END
    with tmpfs(tmp_path / "small", 1 << 20):
        done = extract(data, tmp_path / "small/to/x")
        error, hint = done.stderr.decode().splitlines()
        assert done.returncode == 1 and error.startswith(f"qb-tree: error: cannot extract {NAME}: tar ended with ")
        assert hint == f"hint: there is no space left in {tmp_path}/small/to"
        assert os.listdir(tmp_path / "small") == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with mounted(tmp_path / "ro", "none", "tmpfs", "-o", "ro"):
        refused(extract(b"", tmp_path / "ro/a/x"), 1, f"cannot create {tmp_path}/ro/a: Read-only file system")
        refused(
            extract(b"", tmp_path / "ro/x"), 1, f"cannot create a directory in {tmp_path}/ro: Read-only file system"
        )
    (tmp_path / "file").touch()
    done = extract(b"", tmp_path / "file/x")
    assert done.returncode == 1 and b"cannot create" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_nothing(number: int, tmp_path: Path) -> None:
    data = TOP + FILE + regular(os.urandom(1 << 20), INNER + b"/large") + END
    place = tmp_path / "work"
    place.mkdir()
    (tmp_path / "data").write_bytes(data)
    with Running(tmp_path) as running:
        running.start(f"valve 500000 <{tmp_path}/data | qb-tree --extract {place}/to/x {NAME}")
        running.hold()
        wait_until(lambda: bool(list(place.glob("to/.qb-tree-*/dom0-home/user/large"))), "tar to be at work")
        os.kill(running.one("qb-tree"), number)
        wait_until(lambda: not running.processes("qb-tree") and not running.processes("tar"), "the end of both")
        assert os.listdir(place) == []
        running.release()
        assert running.end()[0] == 128 + number


def test_what_sigkill_leaves_is_removed_by_the_next_run(tmp_path: Path) -> None:
    place = tmp_path / "work"
    for kept in (".qb-tree-mine", f".qb-tree-{Mark.own()}", ".qb-tree-0123456789abcdef"):
        (place / kept).mkdir(parents=True)
    (tmp_path / "data").write_bytes(TOP + FILE + regular(os.urandom(1 << 20), INNER + b"/large") + END)
    before = set(os.listdir(place))
    with Running(tmp_path) as running:
        running.start(f"valve 500000 <{tmp_path}/data | qb-tree --extract {place}/x {NAME}")
        running.hold()
        wait_until(lambda: bool(list(place.glob(".qb-tree-*/dom0-home/user/large"))), "tar to be at work")
        os.kill(running.one("qb-tree"), signal.SIGKILL)
        wait_until(lambda: not running.processes("qb-tree") and not running.processes("tar"), "the end of both")
        running.release()
        running.end()
    (left,) = set(os.listdir(place)) - before
    assert left.startswith(".qb-tree-qbtools-")
    assert extract(TOP + FILE + END, place / "x").returncode == 0
    assert set(os.listdir(place)) == before | {"x"}


def test_a_signal_while_saving_ends_tar(home: Path, tmp_path: Path) -> None:
    (home / "large").write_bytes(os.urandom(3 << 20))
    with Running(tmp_path) as running:
        running.start(f"qb-tree '{home}' {NAME} | valve 1000 >/dev/null")
        running.hold()
        os.kill(running.one("qb-tree"), signal.SIGTERM)
        wait_until(lambda: not running.processes("qb-tree") and not running.processes("tar"), "the end of both")
        running.release()
        assert running.end()[0] == 143


def test_directories_that_even_their_owner_may_not_write_are_removed(tmp_path: Path) -> None:
    need_root()
    open_the_way(tmp_path)
    place = tmp_path / "work"
    place.mkdir()
    os.chown(place, 65534, 65534)
    folder = mode(head(INNER + b"/folder/", kind=b"5"), 0o500)
    (tmp_path / "data").write_bytes(TOP + folder + regular(b"x", INNER + b"/folder/file") + FILE + END)
    # Refused only when tar has done all, modes included.
    path = fake_tar(tmp_path, f'/bin/tar "$@" && chmod 4755 "${{3#*=}}/{NAME}/file"')
    words = f"qb-tree --extract {place}/x {NAME} <{tmp_path}/data"
    done = bash(f"setpriv --reuid 65534 --clear-groups {words}", PATH=path)
    error = f"qb-tree: error: {NAME}/file is a set-user-ID or set-group-ID file\n"
    assert (done.returncode, done.stderr.decode()) == (4, error)
    assert os.listdir(place) == []
