"""qb-delta and qb-merge as programs: a chain by hand, odd indexes, faults around them, what they cost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from devices import make_sparse, tmpfs, volume_stream
from increments import digest
from manual import examples
from running import Running
from support import bash, environment, run

from qbtools.formats import manifest
from qbtools.formats.manifest import FileRecord

NAME = "vm1/private.img"
SIZE = 3_000_003
MEASURE = """
import os, sys
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
sys.stderr.write(f"{usage.ru_maxrss >> 10}\\n")
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """v.img, its stream v, its confirmed index v.index, and what has changed since: w.img."""
    make_sparse(tmp_path / "v.img", SIZE, (0, os.urandom(700_000)), (2_000_000, os.urandom(SIZE - 2_000_000)))
    make_sparse(tmp_path / "w.img", SIZE)
    data = bytearray((tmp_path / "v.img").read_bytes())
    data[100_000:100_005] = b"hello"
    data[300_000:500_000] = bytes(200_000)
    data[-3:] = b"end"
    (tmp_path / "w.img").write_bytes(data)
    index(tmp_path, "v")
    return tmp_path


def delta(place: Path, volume: str, *words: str | Path) -> tuple[int, bytes, str]:
    done = bash(f'cd {place} && qb-volread {volume}.img | qb-delta "$@"'.replace('"$@"', " ".join(map(str, words))))
    return done.returncode, done.stdout, done.stderr.decode()


def index(place: Path, name: str, *words: str, base: str | None = None) -> bytes:
    """The stream of NAME.img against the index of base, whose index NAME.index is confirmed."""
    given = [*words, *(["--base", f"{base}.index"] if base else [])]
    made = delta(place, name, "--index", f"{name}.index", "--id", f"id-{name}", "--name", NAME, *given)
    assert (made[0], made[2]) == (0, "")
    (place / name).write_bytes(made[1])
    confirm(place, name)
    return made[1]


def confirm(place: Path, name: str) -> None:
    record = FileRecord(NAME, 1, 4000, digest(name))
    (place / f"{name}.records").write_text(manifest.to_line(f"id-{name}", record))
    done = run("qb-delta", "--confirm", place / f"{name}.index", place / f"{name}.records")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_chain_by_hand(place: Path) -> None:
    increment = index(place, "w", base="v")
    head, _, rest = increment.partition(b"\n\n")
    assert head.startswith(b"qb-volume 2\nsize %d\nbase id-v " % SIZE)
    assert len(rest) < 5 * 65536
    (place / "x.img").write_bytes((place / "w.img").read_bytes()[:1_000_001])
    index(place, "x", base="w")
    (place / "y.img").write_bytes((place / "x.img").read_bytes() + bytes(1_000_000) + b"y")
    index(place, "y", base="x")
    for count, name in enumerate("vwxy", 1):
        streams = " ".join(f"<(cat {stream})" for stream in "vwxy"[:count])
        done = bash(f"cd {place} && qb-merge {streams} | qb-volwrite {name}.new && cmp {name}.img {name}.new")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), name
    done = bash(f"cd {place} && qb-merge w x y | qb-merge v /dev/stdin | qb-volwrite z && cmp y.img z")
    assert (done.returncode, done.stderr) == (0, b"")


def test_without_options_the_stream_is_passed_on(place: Path) -> None:
    stream = (place / "v").read_bytes()
    assert delta(place, "v") == (0, stream, "")
    for bad, message in ((stream[:-1], "ends without its end line"), (stream + b"x", "bytes follow the end line")):
        done = run("qb-delta", data=bad)
        assert done.returncode == 4
        assert message in done.stderr.decode() and not done.stdout.endswith(stream[-12:])


@pytest.mark.parametrize("words", ["--base v.index", f"--index new --id id-w --name {NAME}"])
def test_a_stream_without_its_end(words: str, place: Path) -> None:
    """Its writer died when all data was written: there is neither an end nor an index."""
    stream = (place / "v").read_bytes()
    for bad, message in ((stream[:-1], "ends without its end line"), (stream + b"x", "bytes follow the end line")):
        done = bash(f"cd {place} && qb-delta {words}", data=bad)
        assert (done.returncode, message in done.stderr.decode()) == (4, True), done
        assert b"\nend " not in done.stdout[-20:]
        assert not (place / "new").exists()


def test_the_key_is_that_of_the_base_and_new_for_each_chain(place: Path) -> None:
    index(place, "w", base="v")
    keys = [(place / f"{name}.index").read_bytes()[16:48] for name in "vw"]
    assert keys[0] == keys[1]
    os.rename(place / "v.index", place / "old")
    index(place, "v")
    assert (place / "v.index").read_bytes()[16:48] not in (keys[0], bytes(32))
    assert (place / "v.index").stat().st_mode & 0o777 == 0o600


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


ODD = {
    "missing": ("rm v.index", "cannot read v.index: No such file or directory"),
    "a directory": ("rm v.index; mkdir v.index", "cannot read v.index: Is a directory"),
    "a fifo": ("rm v.index; mkfifo v.index", "v.index is not a regular file"),
    "empty": (": >v.index", "v.index is not an index of blocks"),
    "another file": ("cp v v.index", "v.index is not an index of blocks"),
    "cut": ("truncate -s -1 v.index", "the index v.index is cut off"),
    "cut to its beginning": ("truncate -s 512 v.index", "the index v.index is cut off"),
    "cut within that": ("truncate -s 511 v.index", "v.index is not an index of blocks"),
    "longer": ("printf x >>v.index", "something follows the end of the index v.index"),
    "bit of the key": ("flip 20", "the index v.index is damaged at its beginning"),
    "bit of the size": ("flip 55", "the index v.index is damaged at its beginning"),
    "bit of the line": ("flip 70", "the index v.index is damaged at its beginning"),
    "bit of a digest": ("flip 600", "the index v.index is damaged"),
    "bit at the end": ("flip -1", "the index v.index is damaged"),
    "not confirmed": ("qb-volread v.img | qb-delta --index v.index --overwrite --id id-z --name NAME >z",
                      "the index v.index was not confirmed"),
    "of a sibling": ("qb-volread v.img | qb-delta --index v.index --overwrite --id id-v --name vm1/root.img >z;"
                     " sed 's/private/root/' v.records >r; qb-delta --confirm v.index r",
                     f"the index v.index is of the volume vm1/root.img, not of {NAME}"),
    "other blocks": ("qb-volread v.img | qb-delta --index v.index --overwrite --id id-v --name NAME --block 4K >z;"
                     " qb-delta --confirm v.index v.records",
                     "the index v.index has blocks of 4096 bytes, not of 65536"),
    "mixed with an older one": ("qb-volread w.img | qb-delta --base v.index --index w.index --id id-w --name NAME >z;"
                                " tail -c +513 w.index >t; truncate -s 512 v.index; cat t >>v.index",
                                "the index v.index is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_an_odd_index_costs_a_whole_backup(name: str, place: Path) -> None:
    """And the next backup counts on the new index."""
    text, message = ODD[name]
    if text.startswith("flip"):
        flipped(place / "v.index", int(text.split()[1]))
    else:
        done = bash(f"cd {place} && {text}".replace("NAME", NAME))
        assert (done.returncode, done.stderr) == (0, b"")
    words = ["--base", "v.index", "--index", "new.index", "--id", "id-w", "--name", NAME, "--block", "64K"]
    status, stream, stderr = delta(place, "w", *words)
    assert (status, stderr) == (0, f"qb-delta: warning: {message}: the volume is saved whole\n")
    assert stream == bash(f"qb-volread {place}/w.img").stdout
    os.rename(place / "new.index", place / "w.index")
    confirm(place, "w")
    assert delta(place, "w", "--base", "w.index")[1].endswith(b"\n\nend 0\n")


def test_blocks_are_those_of_the_base(place: Path) -> None:
    index(place, "v", "--block", "4K", "--overwrite")
    small = index(place, "w", base="v")
    assert (place / "w.index").read_bytes()[56:64] == (4096).to_bytes(8, "big")
    (place / "v.index").unlink()
    index(place, "v")
    assert len(small) < len(delta(place, "w", "--base", "v.index")[1]) - 100_000


GIB = 1 << 30


@pytest.mark.parametrize(
    ("size", "block"),
    [
        (0, 8),
        (128 * GIB, 8),
        (128 * GIB + 1, 16),
        (256 * GIB, 16),
        (256 * GIB + 1, 32),
        (512 * GIB, 32),
        (512 * GIB + 1, 64),
        (4096 * GIB, 64),
    ],
)
def test_automatic_blocks_bound_the_index(place: Path, size: int, block: int) -> None:
    words = f"--block auto --index n.index --id id-n --name {NAME}"
    done = bash(f"cd {place} && qb-delta {words}", data=volume_stream(size))
    assert (done.returncode, done.stderr) == (0, b"")
    with (place / "n.index").open("rb") as file:
        assert file.read(64)[56:] == (block << 10).to_bytes(8, "big")


@pytest.mark.parametrize("given", ["4K", "64K"])
def test_automatic_blocks_are_those_of_the_base(place: Path, given: str) -> None:
    index(place, "v", "--block", given, "--overwrite")
    index(place, "w", "--block", "auto", base="v")
    assert (place / "w.index").read_bytes()[56:64] == (place / "v.index").read_bytes()[56:64]


USAGE = [
    ("--index n", "--index needs --id and --name"),
    ("--index n --id i", "--index needs --id and --name"),
    ("--index n --name a", "--index needs --id and --name"),
    ("--id i", "--id needs --index"),
    ("--overwrite", "--overwrite needs --index"),
    ("--index n --id -- --name a", "--id: not 1 to 128 letters, digits and hyphens, the first no hyphen"),
    ("--index n --id a/b --name a", "--id: not 1 to 128 letters, digits and hyphens, the first no hyphen"),
    (f"--index n --id {'x' * 129} --name a", "--id: not 1 to 128 letters, digits and hyphens, the first no hyphen"),
    ("--index n --id i --name ../a", "../a: not a relative path of letters, digits and _ . @ + -"),
    (f"--name {'d' * 120}/{'b' * 30}", f"{'d' * 120}/{'b' * 30}: longer than 150 bytes"),
    ("--block 5000", "--block: not a power of two between 4096 and 1048576"),
    ("--block 2M", "--block: not a power of two between 4096 and 1048576"),
    ("--block x", "--block: not a size: x"),
    ("--base v.index --index n --id id-v --name vm1/private.img", "--id: v.index is the index of the same backup"),
    ("--confirm v.index v.records --id x", "--id does not go with --confirm"),
    ("--confirm v.index", "no records given"),
    ("v.records", "unexpected argument: v.records; the input comes on standard input"),
]


@pytest.mark.parametrize(("words", "message"), USAGE)
def test_wrong_usage(words: str, message: str, place: Path) -> None:
    done = bash(f"cd {place} && qb-delta {words} <v")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().splitlines()[0].startswith(f"qb-delta: error: {message}")
    assert not (place / "n").exists()


def test_a_new_index_replaces_nothing_unless_told(place: Path) -> None:
    before = (place / "v.index").read_bytes()
    words = ["--index", "v.index", "--id", "id-w", "--name", NAME]
    status, stream, stderr = delta(place, "w", *words)
    assert (status, stream) == (5, b"")
    assert stderr == "qb-delta: error: v.index already exists\nhint: --overwrite replaces it\n"
    assert (place / "v.index").read_bytes() == before
    assert delta(place, "w", *words, "--overwrite")[0] == 0
    assert (place / "v.index").read_bytes() != before


def test_who_reads_whole_volumes_refuses_an_increment(place: Path) -> None:
    index(place, "w", base="v")
    hint = b"hint: qb-merge makes one of it and its base\n"
    text = b"error: standard input is an increment, not a whole volume\n"
    for words in ("qb-volwrite target.img", "qb-delta"):
        done = bash(f"cd {place} && {words} <w")
        assert (done.returncode, done.stdout) == (5, b"")
        assert done.stderr == words.split()[0].encode() + b": " + text + hint
    done = bash(f"cd {place} && qb-tarwrite {NAME} <w | qb-tarextract --raw")
    assert (done.returncode, done.stdout) == (5, b"")
    assert done.stderr == f"qb-tarextract: error: {NAME} is an increment, not a whole volume\n".encode() + hint
    assert not (place / "target.img").exists()


def test_an_increment_of_the_same_base_is_compared(place: Path) -> None:
    """As qb-volread --since writes it: the result is that of the whole volume."""
    increment = index(place, "w", base="v")
    words = f"--index again.index --id id-w --name {NAME}"
    done = bash(f"cd {place} && qb-delta --base v.index {words} <w")
    assert (done.returncode, done.stdout, done.stderr) == (0, increment, b"")
    run("qb-delta", "--confirm", place / "again.index", place / "w.records")
    assert (place / "again.index").read_bytes() == (place / "w.index").read_bytes()
    done = bash(f"cd {place} && qb-delta --base w.index <w")
    assert (done.returncode, done.stdout) == (5, b"")
    assert b"changed since another backup or volume than that of --base\nhint: qb-volread without" in done.stderr
    for cut in (increment[:-1], increment[: len(increment) // 2]):
        done = run("qb-delta", "--base", place / "v.index", "--index", place / "x", "--id=x", "--name", NAME, data=cut)
        assert done.returncode == 4
        assert not done.stdout.endswith(increment[-9:]) and not (place / "x").exists()


def test_the_inner_archive_of_an_increment(place: Path) -> None:
    increment = index(place, "w", base="v")
    archive = run("qb-tarwrite", "--size", str(SIZE), NAME, data=increment)
    assert (archive.returncode, archive.stderr) == (0, b"")
    for words in ([], [NAME]):
        assert run("qb-tarextract", *words, data=archive.stdout).stdout == increment
    assert run("qb-tarextract", "--size", NAME, data=archive.stdout).stdout == b"%d\n" % SIZE
    other = run("qb-tarextract", "vm1/other", data=archive.stdout)
    assert (other.returncode, other.stdout) == (4, b"")
    assert other.stderr == b"qb-tarextract: error: the archive has no member vm1/other\n"
    sizes = run("qb-tarwrite", "--size", "1", NAME, data=increment)
    assert sizes.returncode == 4 and b"the volume has 3000003 bytes, not 1" in sizes.stderr
    long = run("qb-tarwrite", "d" * 120 + "/" + "b" * 30, data=increment)
    assert long.returncode == 2 and b"longer than 150 bytes" in long.stderr
    listed = run("tar", "-tf", "-", data=archive.stdout).stdout.decode().splitlines()
    assert listed[0] == f"{NAME}.d/size" and listed[-1] == f"{NAME}.d/end" and len(listed) > 3


def test_a_volume_that_looks_like_the_header_of_an_increment(place: Path) -> None:
    """Under a name of its own it stays a volume."""
    (place / "t.img").write_bytes(b"qb-volume 2\n" + b"x" * 500)
    done = bash(f"cd {place} && qb-volread t.img | qb-tarwrite a.d/size | qb-tarextract --raw a.d/size | cmp - t.img")
    assert (done.returncode, done.stderr) == (0, b"")
    done = bash(f"cd {place} && qb-volread t.img | qb-tarwrite a.d/size | qb-tarextract a")
    assert done.returncode == 4 and done.stdout == b""


CONFIRM = [
    ("v.index none", 1, "cannot open none: No such file or directory"),
    ("none v.records", 1, "cannot open none: No such file or directory"),
    ("v v.records", 4, "v is not an index of blocks"),
    (". v.records", 1, "cannot open .: Is a directory"),
    ("v.index v", 4, "line 1 of v is not a record of a sealed file"),
    ("v.index /dev/null", 4, f"/dev/null has no record of {NAME} in the backup id-v"),
    ("v.index <(sed s/id-v/id-w/ v.records)", 4, f"has no record of {NAME} in the backup id-v"),
    ("v.index <(sed s/private/root/ v.records)", 4, f"has no record of {NAME} in the backup id-v"),
    ("v.index <(cat v.records v.records)", 4, f"has two records of {NAME}"),
    (f"v.index <(echo id-v failed {NAME})", 4, f"has a failure for {NAME} in the backup id-v"),
    ("v.index <(sed s/4000/4001/ v.records)", 5, "the index v.index was confirmed for another archive of the backup"),
]


@pytest.mark.parametrize(("words", "status", "message"), CONFIRM)
def test_confirming(words: str, status: int, message: str, place: Path) -> None:
    before = (place / "v.index").read_bytes()
    done = bash(f"cd {place} && qb-delta --confirm {words}")
    assert (done.returncode, done.stdout) == (status, b"")
    assert message in done.stderr.decode()
    assert (place / "v.index").read_bytes() == before
    confirm(place, "v")
    assert (place / "v.index").read_bytes() == before
    (place / "others").write_text(f"id-x 1 5 {'0' * 64} {NAME}\n")
    done = bash(f"cd {place} && cat others v.records others | qb-delta --confirm v.index -")
    assert (done.returncode, done.stderr) == (0, b"")


def test_no_room_for_the_index(place: Path) -> None:
    """Neither an index nor a stream that looks whole."""
    (place / "v.img").write_bytes(b"data" * (1 << 21))
    with tmpfs(place / "small", 16 << 10):
        words = ["--index", "small/new", "--id", "id-v", "--name", NAME, "--block", "4K"]
        status, stream, stderr = delta(place, "v", *words)
        assert os.listdir(place / "small") == []
    assert (status, stderr) == (1, "qb-delta: error: cannot write to small/new.partial: No space left on device\n")
    assert run("qb-merge", "/dev/stdin", data=stream).returncode == 4


@pytest.mark.parametrize("signal", [2, 9, 15])
def test_a_run_that_is_killed_leaves_no_index(
    signal: int, place: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (place / "big.img").write_bytes(os.urandom(8 << 20))
    words = f"--base v.index --index new --id id-w --name {NAME}"
    text = f"cd {place} && qb-volread big.img | qb-delta {words} | valve 100000 >out"
    with Running(tmp_path_factory.mktemp("run")) as running:
        running.start(text)
        running.hold()
        os.kill(running.one("qb-delta"), signal)
        running.release()
        running.end()
        running.gone()
    assert not (place / "new").exists()
    assert (place / "new.partial").exists() == (signal == 9)
    assert bash(f"cd {place} && qb-merge v out").returncode == 4
    status, _, stderr = delta(place, "w", *words.split())
    assert (status, stderr) == (0, "")
    assert not (place / "new.partial").exists()


@pytest.mark.parametrize("program", ["qb-volread", "qb-delta"])
def test_the_writer_of_a_stream_dies(program: str, place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (place / "big.img").write_bytes(os.urandom(8 << 20))
    text = "qb-merge v <(qb-volread big.img | valve 100000 | qb-delta --base v.index) >out"
    with Running(tmp_path_factory.mktemp("run"), place) as running:
        running.start(text)
        running.hold()
        os.kill(running.one(program), 9)
        running.release()
        status, stderr = running.end()
    assert status == 4
    assert "qb-merge: error: " in stderr and stderr.splitlines()[-1].endswith((" early", "end line", "before fail?"))
    assert run("qb-volwrite", place / "target", data=(place / "out").read_bytes()).returncode == 4


def test_merging_what_does_not_fit(place: Path) -> None:
    index(place, "w", base="v")
    for words, status, message in (
        ("v none", 1, "cannot open none: No such file or directory"),
        ("--bases none,none v", 2, "--bases has 2 words for 1 streams"),
        ("--bases none,id-v v w", 2, "--bases: neither none nor ID:SHA256: id-v"),
        ("--bases none --bases-from x v", 2, "--bases and --bases-from exclude each other"),
        ("--bases none,none v w", 4, "w is an increment of another volume or backup: id-v"),
        ("v .", 1, "cannot open .: Is a directory"),
        ("v v", 4, f"v is a whole volume of {SIZE} bytes, not an increment"),
        ("v w w", 4, "w has the same base as a stream before it: id-v"),
        ("v.img", 4, "v.img is not a volume stream"),
        ("v /dev/null", 4, "/dev/null is empty: did the program before fail?"),
        ("v <(head -c -1 w)", 4, "ends without its end line"),
    ):
        done = bash(f"cd {place} && qb-merge {words}")
        assert done.returncode == status, done.stderr
        assert message in done.stderr.decode().splitlines()[0]
        assert run("qb-tarwrite", "a", data=done.stdout).returncode == 4


def test_the_examples_of_the_manual(tmp_path: Path) -> None:
    """The recipe as it stands, then with a volume that has changed."""
    make_sparse(tmp_path / "disk.img", 5 << 20, (70_000, os.urandom(2 << 20)))
    (tmp_path / "passphrase").write_text("by hand\n")
    (tmp_path / "passphrase").chmod(0o600)
    page = examples("qb-delta.1")
    secret = {"QB_PASSPHRASE_FILE": str(tmp_path / "passphrase")}
    done = bash(f"cd {tmp_path}\n{page['delta-first']}", **secret)
    assert (done.returncode, done.stderr) == (0, b"")
    with (tmp_path / "disk.img").open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"changed")
    done = bash(f"cd {tmp_path}\n{page['delta-next']}", **secret)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "now.img").read_bytes() == (tmp_path / "disk.img").read_bytes()
    assert (tmp_path / "disk.increment").stat().st_size < 70_000
    # The digest is that of the line that stands in the manifest of the archive.
    shown = bash(f"cd {tmp_path} && grep -a '^base ' disk.increment && cat first.records", **secret).stdout.decode()
    base, record = shown.splitlines()
    backup_id, *fields = record.split()
    line = f"file {' '.join(fields)}\n"
    summed = run("sha256sum", data=line.encode()).stdout.decode().split()[0]
    assert base == f"base {backup_id} {summed}"


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """256 GiB with a quarter of the extents that there can be, before (a) and after (b) a change; the index of a.

    As a whole, the index and the lists of extents would take several times the memory that the test allows.
    """
    place = tmp_path_factory.mktemp("huge")
    size, count = 1 << 38, 1 << 18
    for name, fill in (("a", b"A"), ("b", b"B")):
        with (place / name).open("wb") as file:
            file.write(b"qb-volume 1\nsize %d\nextents %d\n" % (size, count))
            file.write(b"".join(b"%d 512\n" % (at << 10) for at in range(count - 1)) + b"%d 512\n\n" % (size - 512))
            for part in range(64):
                file.write((b"A" if part else fill) * (count // 64 * 512))
            file.write(b"end %d\n" % (count * 512))
    (place / "measure.py").write_text(MEASURE)
    return place


def measured(place: Path, text: str) -> int:
    """MiB that the program took at most."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{sys.executable} measure.py {text}"],
        cwd=place, env=environment(), capture_output=True, timeout=600, check=False,
    )  # fmt: skip
    *lines, peak = done.stderr.decode().splitlines()
    assert (done.returncode, lines) == (0, [])
    return int(peak)


def test_memory_with_a_large_volume(huge: Path) -> None:
    words = f"--index a.index --id id-a --name {NAME}"
    assert measured(huge, f"qb-delta {words} <a >/dev/null") <= 40
    confirm(huge, "a")
    assert (huge / "a.index").stat().st_size > 1 << 26
    assert (huge / "a.index").stat().st_blocks * 512 < 32 << 20  # blocks of zeros take no room
    words = f"--base a.index --index b.index --id id-b --name {NAME}"
    assert measured(huge, f"qb-delta {words} <b >delta") <= 40
    assert measured(huge, "qb-merge a delta >merged") <= 40
    assert bash(f"cd {huge} && cmp b merged").returncode == 0


def test_streams_by_hand_are_the_same(place: Path) -> None:
    """What the helper of the other tests writes is what the program takes."""
    stream = volume_stream(4096, (512, b"A" * 512))
    assert run("qb-merge", "/dev/stdin", data=stream).stdout == stream


def test_a_newer_whole_volume_drops_older_streams(place: Path) -> None:
    index(place, "w", base="v")
    done = bash(
        f"cd {place} && qb-volread w.img >whole && qb-merge --drop-older v whole | qb-volwrite o && cmp w.img o"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    (place / "x.img").write_bytes((place / "w.img").read_bytes()[:1_000_001])
    index(place, "x", base="w")
    done = bash(f"cd {place} && qb-merge --drop-older v whole x | qb-volwrite p && cmp x.img p")
    assert (done.returncode, done.stderr) == (0, b"")
    done = bash(f"cd {place} && qb-merge v w whole >bad")
    assert done.returncode == 4
    assert b"is a whole volume" in done.stderr
    done = bash(f"cd {place} && : >empty && qb-merge --drop-older v empty >bad")
    assert done.returncode == 4


def test_the_end_waits_for_the_bases(place: Path) -> None:
    """They come on a FIFO when the streams were read. If they do not fit, or their writer dies, there is no end."""
    index(place, "w", base="v")
    base = f"id-v {manifest.line_digest(FileRecord(NAME, 1, 4000, digest('v')))}"
    merge = f"cd {place} && qb-merge --drop-older --bases-from"
    done = bash(f"{merge} <(printf '%s\\n' none '{base}' end) v w | qb-volwrite o && cmp w.img o")
    assert (done.returncode, done.stderr) == (0, b"")
    for lines, message in (
        (f"none '{base[:-1]}x' end", b"w is an increment of another volume or backup"),
        (f"none '{base}'", b"ends without its line end"),
    ):
        done = bash(f"{merge} <(printf '%s\\n' {lines}) v w | qb-volwrite p")
        assert (done.returncode, message in done.stderr) == (4, True), done.stderr
        assert not (place / "p").exists()
    done = bash(f"cd {place} && qb-merge --bases-from '' v >bad")
    assert (done.returncode, b"--bases-from: the name is empty" in done.stderr) == (2, True)


def test_tarextract_compares_the_base(place: Path) -> None:
    increment = index(place, "w", base="v")
    line = manifest.line_digest(FileRecord(NAME, 1, 4000, digest("v")))
    base = f"id-v:{line}"
    (place / "inner").write_bytes(run("qb-tarwrite", NAME, data=increment).stdout)
    extract = f"cd {place} && qb-tarextract <inner --base"
    done = bash(f"{extract} {base} {NAME}")
    assert (done.returncode, done.stdout, done.stderr) == (0, increment, b"")
    for other in ("none", f"id-w:{line}", f"id-v:{digest('w')}"):
        done = bash(f"{extract} {other} {NAME}")
        assert (done.returncode, done.stdout) == (4, b"")
        assert b"is an increment of another volume or backup" in done.stderr
    done = bash(f"cd {place} && qb-tarwrite {NAME} <v | qb-tarextract --base none {NAME} | cmp - v")
    assert (done.returncode, done.stderr) == (0, b"")
    done = bash(f"{extract} {base} --list {NAME}")
    assert (done.returncode, done.stdout) == (2, b"")
