"""Disk images as volumes: what is read from them, which files that may be, and what a new one is."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from devices import make_sparse, mounted, volume_stream
from nbdservers import qemu_nbd
from running import read, wait_until
from support import bash, environment, need, run

KIB, MIB = 1 << 10, 1 << 20
DATA = random.Random(5).randbytes(3 * MIB)
PIECES = (MIB, DATA), (9 * MIB, DATA[: 64 * KIB])
SIZE = 16 * MIB


def qemu_img(*words: str | Path) -> str:
    need("qemu-img", "qemu-nbd")
    done = subprocess.run(["qemu-img", *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write(image: Path, pattern: int, offset: int, length: int) -> None:
    need("qemu-io")
    subprocess.run(["qemu-io", "-c", f"write -P {pattern} {offset} {length}", image], capture_output=True, check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return make_sparse(tmp_path / "disk.raw", SIZE, *PIECES)


@pytest.fixture
def image(disk: Path) -> Path:
    """A qcow2 image of the disk."""
    qemu_img("convert", "-f", "raw", "-O", "qcow2", disk, disk.with_suffix(".qcow2"))
    return disk.with_suffix(".qcow2")


def failed(done: subprocess.CompletedProcess[bytes], status: int, message: str, hint: str = "") -> None:
    """It ended with status and one line of error, perhaps with a hint, and what it wrote is not complete."""
    first, *rest = done.stderr.decode().splitlines()
    assert (done.returncode, first.partition(" ")[2].startswith("error: ")) == (status, True), done.stderr
    assert message in first and all(line.startswith("hint: ") for line in rest) and len(rest) < 2, done.stderr
    assert hint in "".join(rest)
    assert b"end " not in done.stdout[-60:]


def reads(word: str | Path, expected: bytes, kind: str = "qcow2") -> None:
    done = run("qb-volread", "--raw", f"{kind}:{word}")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == expected


def contents(place: Path) -> list[str]:
    return sorted(os.listdir(place))


def without_qemu(place: Path) -> str:
    """A PATH with Python and our programs alone."""
    place.mkdir()
    for name in ("python3", "env"):
        (place / name).symlink_to(
            next(Path(each) / name for each in environment()["PATH"].split(":") if (Path(each) / name).exists())
        )
    return str(place)


# --- reading ---


def test_the_map_and_the_data(disk: Path, image: Path) -> None:
    done = run("qb-volread", f"qcow2:{image}")
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", volume_stream(SIZE, *PIECES))
    assert run("qb-volread", "--size", f"qcow2:{image}").stdout == b"%d\t%d\n" % (SIZE, len(DATA) + 64 * KIB)
    done = run("qb-volread", image)
    assert done.stdout == run("qb-volread", "--opaque", image).stdout != volume_stream(SIZE, *PIECES)
    assert f"the file is saved as it is, not the disk in it; qcow2:{image} reads the disk" in done.stderr.decode()


def test_compressed_clusters(disk: Path, tmp_path: Path) -> None:
    for kind in ("zlib", "zstd"):
        qemu_img("convert", "-c", "-O", "qcow2", "-o", f"compression_type={kind}", disk, tmp_path / kind)
        reads(tmp_path / kind, disk.read_bytes())


def test_a_chain_is_read_through(disk: Path, image: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    qemu_img("create", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", tmp_path / "one")
    write(tmp_path / "one", 1, 0, 64 * KIB)
    qemu_img("create", "-f", "qcow2", "-b", "../one", "-F", "qcow2", tmp_path / "other/two")
    write(tmp_path / "other/two", 2, 64 * KIB, 64 * KIB)
    expected = b"\1" * 64 * KIB + b"\2" * 64 * KIB + disk.read_bytes()[128 * KIB :]
    reads(tmp_path / "other/two", expected)
    (tmp_path / "link").symlink_to("one")
    reads(tmp_path / "link", b"\1" * 64 * KIB + disk.read_bytes()[64 * KIB :])
    assert run("qb-volread", f"qcow2:{tmp_path}/other/two").stdout == volume_stream(
        SIZE, (0, expected[: 128 * KIB]), *PIECES
    )
    failed(run("qb-volread", tmp_path / "one"), 5, "has a backing file", f"qcow2:{tmp_path}/one reads the disk")


def test_a_data_file_is_read_through(disk: Path, tmp_path: Path) -> None:
    words = "-o", f"data_file={tmp_path}/data,data_file_raw=on"
    qemu_img("convert", "-O", "qcow2", *words, disk, tmp_path / "image")
    reads(tmp_path / "image", disk.read_bytes())
    failed(run("qb-volread", tmp_path / "image"), 5, "its data is in another file", f"qcow2:{tmp_path}/image reads")


def test_the_active_layer_is_read(disk: Path, image: Path) -> None:
    qemu_img("snapshot", "-c", "before", image)
    write(image, 7, 0, MIB)
    reads(image, b"\7" * MIB + disk.read_bytes()[MIB:])


def test_a_tebibyte_takes_the_time_of_its_data(tmp_path: Path) -> None:
    qemu_img("create", "-f", "qcow2", tmp_path / "image", "1T")
    write(tmp_path / "image", 7, (1 << 39) + (1 << 33), 10 * MIB)
    began = time.monotonic()
    done = run("qb-volread", f"qcow2:{tmp_path}/image")
    assert time.monotonic() - began < 20
    assert done.stdout == volume_stream(1 << 40, ((1 << 39) + (1 << 33), b"\7" * 10 * MIB))
    began = time.monotonic()
    assert run("qb-volwrite", f"qcow2:{tmp_path}/copy", data=done.stdout).stderr == b""
    assert time.monotonic() - began < 20
    assert (tmp_path / "copy").stat().st_size < 16 * MIB
    assert run("qb-volread", f"qcow2:{tmp_path}/copy").stdout == done.stdout


def test_sizes_of_64_bits(tmp_path: Path) -> None:
    size = (32 << 40) + 512
    qemu_img("create", "-f", "qcow2", tmp_path / "image", str(size))
    write(tmp_path / "image", 7, size - 512, 512)
    stream = volume_stream(size, (size - 512, b"\7" * 512))
    assert run("qb-volread", f"qcow2:{tmp_path}/image").stdout == stream
    assert run("qb-volwrite", f"qcow2:{tmp_path}/copy", data=stream).stderr == b""
    assert f"({size} bytes)" in qemu_img("info", tmp_path / "copy")


@pytest.mark.parametrize("kind", ["vmdk", "vdi", "vhdx"])
def test_other_formats(disk: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"disk.{kind}"
    qemu_img("convert", "-O", kind, disk, path)
    reads(path, disk.read_bytes(), kind)
    assert f"{kind}:{path} reads the disk" in run("qb-volread", path).stderr.decode()
    failed(run("qb-volwrite", f"{kind}:{tmp_path}/new", data=volume_stream(0)), 2, "can only be read")
    failed(run("qb-volread", f"{kind}:{disk}"), 4, f"is not a {kind} image")
    if kind == "vdi":
        damage(path, 0x4C, (4).to_bytes(4, "little"))
        failed(run("qb-volread", f"vdi:{path}"), 5, "needs another file: it has a parent")


def test_vmdk_of_one_file_alone(disk: Path, tmp_path: Path) -> None:
    for kind in ("streamOptimized", "monolithicFlat", "twoGbMaxExtentSparse"):
        qemu_img("convert", "-O", "vmdk", "-o", f"subformat={kind}", disk, tmp_path / f"{kind}.vmdk")
    reads(tmp_path / "streamOptimized.vmdk", disk.read_bytes(), "vmdk")
    for kind in ("monolithicFlat", "twoGbMaxExtentSparse"):
        failed(run("qb-volread", f"vmdk:{tmp_path}/{kind}.vmdk"), 5, "needs another file")
    base = tmp_path / "base.vmdk"
    qemu_img("create", "-f", "vmdk", base, "16M")
    qemu_img("create", "-f", "vmdk", "-b", base, "-F", "vmdk", tmp_path / "child.vmdk")
    failed(run("qb-volread", f"vmdk:{tmp_path}/child.vmdk"), 5, "needs another file: it has a parent")
    data = bytearray((tmp_path / "streamOptimized.vmdk").read_bytes())
    at = data.index(b"RDONLY") if b"RDONLY" in data else data.index(b"RW ")
    evil = b'RW 32768 FLAT "/etc/passwd" 0\n#'
    (tmp_path / "evil.vmdk").write_bytes(data[:at] + evil + data[at + len(evil) :])
    reads(tmp_path / "evil.vmdk", disk.read_bytes(), "vmdk")  # what a descriptor inside names is of no interest
    data[12:20] = bytes(8)  # then QEMU would open what its descriptor names
    (tmp_path / "flat.vmdk").write_bytes(data)
    failed(run("qb-volread", f"vmdk:{tmp_path}/flat.vmdk"), 5, "needs another file")


# --- images that are not read ---


def damage(image: Path, offset: int, data: bytes) -> None:
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_an_encrypted_image(image: Path, tmp_path: Path) -> None:
    """Its header has the number of the method; to let QEMU make such an image sometimes fails on a busy machine."""
    qemu_img("create", "-f", "qcow2", "-b", image, "-F", "qcow2", tmp_path / "child", "16M")
    for number, method in (1, "AES"), (2, "LUKS"):
        damage(image, 32, number.to_bytes(4, "big"))
        message = f"is encrypted ({method}): the disk cannot be read without its key"
        failed(run("qb-volread", f"qcow2:{image}"), 5, message, "file:PATH saves")
        failed(run("qb-volread", f"qcow2:{tmp_path}/child"), 5, message)


def test_a_corrupt_image(image: Path, tmp_path: Path) -> None:
    good = image.read_bytes()
    table = int.from_bytes(good[40:48], "big")
    damage(image, 72, (2).to_bytes(8, "big"))
    failed(run("qb-volread", f"qcow2:{image}"), 4, "is marked as corrupt", "qemu-img check")
    image.write_bytes(good)
    damage(image, 40, (table + 7).to_bytes(8, "big"))
    failed(run("qb-volread", f"qcow2:{image}"), 4, f"cannot read the image qcow2:{image}: ")
    image.write_bytes(good)
    damage(
        image,
        int.from_bytes(good[table : table + 8], "big") & (1 << 56) - 512,
        (1 << 63 | 512 * 3).to_bytes(8, "big") * 999,
    )
    failed(run("qb-volread", f"qcow2:{image}"), 4, "orrupt")
    for data, message in {
        good[:50]: "no valid qcow2 header",
        b"x" * 999: "is not a qcow2",
        b"": "is not a qcow2",
    }.items():
        image.write_bytes(data)
        failed(run("qb-volread", f"qcow2:{image}"), 4, message)
    for at, number in ((4, 9), (20, 40), (100, 1 << 30), (8, 1 << 40)):
        image.write_bytes(good)
        damage(image, at, number.to_bytes(8 if at == 8 else 4, "big"))
        failed(run("qb-volread", f"qcow2:{image}"), 4, "valid")


@pytest.mark.parametrize("kind", ["qcow2", "vmdk", "vdi", "vhdx"])
def test_an_image_that_has_lost_its_end(disk: Path, tmp_path: Path, kind: str) -> None:
    """QEMU itself reads zeros there, except from vhdx."""
    path = tmp_path / f"disk.{kind}"
    qemu_img("convert", "-O", kind, disk, path)
    os.truncate(path, path.stat().st_size - (2 if kind == "vhdx" else 1) * MIB)
    failed(run("qb-volread", f"{kind}:{path}"), 4, "truncated" if kind == "vhdx" else "has lost its end: byte ")
    if kind == "vhdx":
        return
    done = run("qb-volread", "--raw", "--state=current", f"{kind}:{path}")
    assert done.returncode == 0 and done.stdout != disk.read_bytes()
    if kind == "qcow2":
        (tmp_path / "child").touch()
        qemu_img("create", "-f", "qcow2", "-b", path, "-F", "qcow2", tmp_path / "child", "16M")
        failed(run("qb-volread", f"qcow2:{tmp_path}/child"), 4, "has lost its end: byte ", "--state=current")
        os.truncate(path, 300 * KIB)
        failed(run("qb-volread", f"qcow2:{path}"), 4, "has lost its end: a table is missing", "qemu-img check")


def test_what_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    failed(run("qb-volread", f"qcow2:{tmp_path}/fifo"), 2, "is not a regular file")
    failed(run("qb-volread", f"qcow2:{tmp_path}"), 2, "is not a regular file")
    failed(run("qb-volread", f"qcow2:{tmp_path}/gone"), 1, "No such file or directory")


def test_states(image: Path) -> None:
    for words in (), ("--size",):
        done = run("qb-volread", *words, "--state=snapshot", f"qcow2:{image}")
        failed(done, 5, "is an image, which is locked while it is read", "qb-snapshot takes a snapshot of it")
    failed(run("qb-volread", "--state=before-start", f"qcow2:{image}"), 2, "no state from before the start")


def test_an_image_in_use(disk: Path, image: Path, tmp_path: Path) -> None:
    with qemu_nbd(tmp_path, "-f", "qcow2", image):
        failed(run("qb-volread", f"qcow2:{image}"), 5, "is in use: another program has locked it", "shut its machine")
        assert run("qb-volread", "--raw", "--state=current", f"qcow2:{image}").stdout == disk.read_bytes()
        assert run("qb-volread", "--size", f"qcow2:{image}").returncode == 0
        overlay = tmp_path / "overlay"
        qemu_img("create", "-f", "qcow2", "-b", image, "-F", "qcow2", overlay, "16M")
        failed(run("qb-volread", f"qcow2:{overlay}"), 5, "is in use")
    with qemu_nbd(tmp_path, "-r", "-f", "qcow2", image):
        reads(image, disk.read_bytes())


def test_an_image_that_changes_while_it_is_read(image: Path) -> None:
    with subprocess.Popen(
        ["qb-volread", f"qcow2:{image}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None and process.stdout.read(MIB)
        os.utime(image)
        rest, said = process.communicate()
    assert process.returncode == 1 and b"changed while it was read" in said and not rest.endswith(b"\n")


# --- whom an image may name ---


def overlay(place: Path, backing: str, kind: str) -> Path:
    """An image that says that this is its backing file."""
    qemu_img("create", "-q", "-f", "qcow2", place / "evil", "64K")
    qemu_img("rebase", "-u", "-f", "qcow2", "-b", backing, "-F", kind, place / "evil")
    return place / "evil"


@pytest.mark.parametrize(
    ("backing", "kind", "message"),
    [
        ("/etc/passwd", "raw", "which is not in its directory: it may be any file of this host"),
        ("../secret", "raw", "which is not in its directory"),
        ("link", "raw", "which is not in its directory"),
        ("nbd://localhost/", "raw", "names the backing file nbd://localhost/, which is not the path of a file"),
        ('json:{"driver":"null-co"}', "raw", "which is not the path of a file"),
        ("ssh://host/x", "qcow2", "which is not the path of a file"),
        ("fifo", "raw", "is not a regular file"),
        ("/dev/zero", "qcow2", "is not a regular file"),
        ("plain", "vmdk", "has a backing file in the format vmdk"),
    ],
)
def test_a_backing_file_that_is_refused(tmp_path: Path, backing: str, kind: str, message: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret" * 99)
    place = tmp_path / "images"
    place.mkdir()
    (place / "link").symlink_to("../secret")
    (place / "plain").write_bytes(b"secret" * 99)
    os.mkfifo(place / "fifo")
    image = overlay(place, backing, kind)
    for words in ((), ("--size",), ("--state=current",)):
        done = run("qb-volread", *words, f"qcow2:{image}")
        failed(done, 5, message)
        assert b"secret" not in done.stdout


def test_what_is_refused_is_not_opened(tmp_path: Path) -> None:
    """Opening some devices has an effect, such as /dev/watchdog."""
    os.mkfifo(tmp_path / "fifo")
    image = overlay(tmp_path, "fifo", "qcow2")
    with subprocess.Popen(["sh", "-c", "exec 3>fifo && touch opened"], cwd=tmp_path) as waiting:
        failed(run("qb-volread", f"qcow2:{image}"), 5, "is not a regular file")
        time.sleep(0.5)
        waiting.kill()
    assert not (tmp_path / "opened").exists()


def test_a_backing_file_without_a_format_is_not_probed(disk: Path, tmp_path: Path) -> None:
    image = overlay(tmp_path, "disk.raw", "raw")
    data = image.read_bytes()
    at = data.index((0xE2792ACA).to_bytes(4, "big"))
    damage(image, at, (0x12345678).to_bytes(4, "big"))
    message = "does not say which format its backing file has, and guessing is not safe"
    failed(run("qb-volread", f"qcow2:{image}"), 5, message, "qemu-img rebase -u -F FORMAT -b disk.raw")


def test_a_data_file_that_is_refused(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    image = tmp_path / "place/evil"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path}/data,data_file_raw=on", image, "1M")
    failed(run("qb-volread", f"qcow2:{image}"), 5, "which is not in its directory")


def test_a_chain_without_an_end(tmp_path: Path) -> None:
    failed(run("qb-volread", f"qcow2:{overlay(tmp_path, 'evil', 'qcow2')}"), 4, "is its own backing file")
    for number in range(70):
        data = (tmp_path / "evil").read_bytes().replace(b"evil", b"%04d" % (number + 1))
        (tmp_path / f"{number:04d}").write_bytes(data)
    failed(run("qb-volread", f"qcow2:{tmp_path}/0000"), 5, "more than 64 files")


# --- qemu-nbd ---


def test_qemu_nbd_is_not_installed(image: Path, tmp_path: Path) -> None:
    path = without_qemu(tmp_path / "bin")
    program = environment()["PATH"].split(":")[0]
    for argv in ("qb-volread", f"qcow2:{image}"), ("qb-volwrite", f"qcow2:{tmp_path}/new"):
        done = run(f"{program}/{argv[0]}", *argv[1:], PATH=path)
        failed(done, 1, "qemu-nbd is not installed", "qemu-utils")


def test_its_environment_is_ours_and_its_messages_are_one_line(image: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/qemu-nbd"
    fake.write_text(f"#!/bin/sh\nenv >{tmp_path}/env\necho 'qemu-nbd: strange' >&2\necho more >&2\nexit 1\n")
    fake.chmod(0o755)
    path = f"{tmp_path}/bin:{environment()['PATH']}"
    done = run("qb-volread", f"qcow2:{image}", PATH=path, BASH_ENV="/x", AWS_SECRET="x", LD_PRELOAD="")
    failed(done, 4, f"cannot read the image qcow2:{image}: strange")
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert names <= {"PATH", "HOME", "LC_ALL", "LISTEN_PID", "LISTEN_FDS", "PWD", "OLDPWD", "SHLVL", "_"}


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_when_a_reader_is_killed(image: Path, tmp_path: Path, number: int) -> None:
    (tmp_path / "tmp").mkdir()
    with subprocess.Popen(
        ["qb-volread", f"qcow2:{image}"], stdout=subprocess.PIPE, env=environment(TMPDIR=f"{tmp_path}/tmp")
    ) as process:
        assert process.stdout is not None and process.stdout.read(MIB)
        started = children(process.pid)
        assert any(b"qemu-nbd" in read(f"/proc/{child}/cmdline") for child in started)
        process.send_signal(number)
        assert process.wait(20) == -number
    for child in started:
        wait_until(lambda: not read(f"/proc/{child}/cmdline"), "the programs of QEMU are gone")  # noqa: B023
    assert contents(tmp_path / "tmp") == []


def test_a_reader_of_ours_that_goes_away(image: Path) -> None:
    done = bash(f"set +o pipefail; qb-volread qcow2:{image} | head -c 1000 >&2; echo ${{PIPESTATUS[0]}}")
    assert done.stdout == b"141\n"


@pytest.mark.parametrize("options", [(), ("-c",)], ids=["plain", "compressed"])
def test_qemu_nbd_dies(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Also if nothing is read through it any more: it is what keeps a machine from starting."""
    image = tmp_path / "image"
    data = (DATA[:KIB] + bytes(KIB)) * (16 * KIB)  # more than the pipe and the requests in flight hold
    make_sparse(tmp_path / "raw", 32 * MIB, (0, data))
    qemu_img("convert", "-O", "qcow2", *options, tmp_path / "raw", image)
    with subprocess.Popen(
        ["qb-volread", f"qcow2:{image}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None and process.stdout.read(1024)
        (child,) = [each for each in children(process.pid) if b"qemu-nbd" in read(f"/proc/{each}/cmdline")]
        os.kill(child, signal.SIGKILL)
        rest, said = process.communicate()
    assert process.returncode == 1 and b"end " not in rest[-60:]
    assert said.decode() == f"qb-volread: error: qcow2:{image}: qemu-nbd was killed by SIGKILL\n"


def test_a_long_tmpdir(disk: Path, image: Path, tmp_path: Path) -> None:
    place = tmp_path / ("x" * 200)
    place.mkdir()
    assert run("qb-volread", "--raw", f"qcow2:{image}", TMPDIR=str(place)).stdout == disk.read_bytes()
    failed(run("qb-volread", f"qcow2:{image}", TMPDIR=f"{place}/gone"), 1, "No such file or directory")


# --- writing ---


STREAM = volume_stream(SIZE, *PIECES)


def same(path: Path, disk: Path) -> None:
    qemu_img("check", "-f", "qcow2", path)
    qemu_img("compare", "-f", "qcow2", "-F", "raw", path, disk)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("options", "info"),
    [
        ("", "cluster_size: 65536"),
        ("cluster_size=2M", "cluster_size: 2097152"),
        ("cluster_size=512", "cluster_size: 512"),
        ("compress=on", "compression type: zlib"),
        ("compress=on,compression_type=zstd,cluster_size=128k", "compression type: zstd"),
        ("preallocation=metadata", "cluster_size: 65536"),
        ("preallocation=falloc", "cluster_size: 65536"),
    ],
)
def test_a_new_image(disk: Path, tmp_path: Path, options: str, info: str) -> None:
    (tmp_path / "to").mkdir()
    word = f"qcow2:{tmp_path}/to/new" + (f",{options}" if options else "")
    done = run("qb-volwrite", "--verify", "--print-size", word, data=STREAM)
    assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"%d\n" % SIZE)
    assert contents(tmp_path / "to") == ["new"]
    same(tmp_path / "to/new", disk)
    assert info in qemu_img("info", tmp_path / "to/new")
    failed(run("qb-volwrite", word, data=STREAM), 5, "already exists", "--overwrite replaces it")
    if options:
        option = ("--create-option", options)
        assert run("qb-volwrite", *option, f"qcow2:{tmp_path}/to/b,x", data=STREAM).stderr == b""
        assert info in qemu_img("info", tmp_path / "to/b,x")


@pytest.mark.parametrize("size", [0, 1, 512, 65536 + 512, 65536 + 513])
@pytest.mark.parametrize("options", ["", ",compress=on"])
def test_sizes_are_rounded_up_to_sectors(tmp_path: Path, size: int, options: str) -> None:
    data = b"x" * size
    stream = volume_stream(size, *([(0, data)] if size else []))
    assert run("qb-volwrite", "--verify", f"qcow2:{tmp_path}/new{options}", data=stream).stderr == b""
    reads(tmp_path / "new", data.ljust(-(-size // 512) * 512, b"\0"))


def test_extents_that_share_a_compressed_cluster(tmp_path: Path) -> None:
    pieces = [(offset, DATA[offset : offset + 512]) for offset in range(0, 256 * KIB, 1024)]
    stream = volume_stream(MIB, *pieces)
    assert run("qb-volwrite", "--verify", f"qcow2:{tmp_path}/new,compress=on", data=stream).stderr == b""
    reads(tmp_path / "new", b"".join(data + bytes(512) for _, data in pieces).ljust(MIB, b"\0"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("cluster_size=3", "cluster_size=3 is not a power of two"),
        ("cluster_size=4M", "is not a power of two between 512 and 2M"),
        ("compress=yes", "compress is one of off, on"),
        ("compression_type=gzip", "compression_type is one of zlib, zstd"),
        ("compress=on,preallocation=full", "compress=on does not go with preallocation=full"),
        ("compress=on,compress=on", "the option compress is given twice"),
        ("backing_file=/etc/passwd", "backing_file=/etc/passwd is not an option of a qcow2 image"),
    ],
)
def test_options_that_do_not_exist(tmp_path: Path, options: str, message: str) -> None:
    failed(run("qb-volwrite", "--create-option", options, f"qcow2:{tmp_path}/new", data=STREAM), 2, message)
    assert contents(tmp_path) == []


def test_options_of_other_kinds(tmp_path: Path) -> None:
    done = run("qb-volwrite", "--create-option", "compress=on", tmp_path / "new", data=STREAM)
    failed(done, 2, "file: volumes of this kind have no options of their creation")
    failed(run("qb-volwrite", "--raw", f"qcow2:{tmp_path}/new", data=b"x"), 2, "the size of an image must be known")
    failed(run("qb-volwrite", f"qcow2:{tmp_path}", data=STREAM), 2, "is a directory")
    failed(run("qb-volwrite", f"qcow2:{tmp_path}/gone/new", data=STREAM), 1, "No such file or directory")


def test_an_image_is_replaced_when_the_new_one_is_complete(disk: Path, image: Path, tmp_path: Path) -> None:
    big = volume_stream(2 * SIZE, (SIZE, DATA))
    before = image.read_bytes()
    failed(run("qb-volwrite", "--overwrite", f"qcow2:{image}", data=big[:-9]), 4, "")
    assert image.read_bytes() == before
    assert run("qb-volwrite", "--overwrite", f"qcow2:{image}", data=big).stderr == b""
    assert run("qb-volread", f"qcow2:{image}").stdout == big
    failed(run("qb-volwrite", "--overwrite", f"qcow2:{image}", data=STREAM), 5, "has 33554432 bytes", "--shrink")
    done = run("qb-volwrite", "--overwrite", "--shrink", f"qcow2:{image}", data=STREAM)
    assert done.returncode == 0 and b"shrinks from 33554432 to 16777216 bytes" in done.stderr
    assert contents(tmp_path) == ["disk.qcow2", "disk.raw"]


def test_nothing_is_left_of_an_image_that_is_not_complete(tmp_path: Path) -> None:
    for data in (STREAM[:-5], STREAM[: 2 * MIB], STREAM + b"x", b"", b"x" * 999):
        failed(run("qb-volwrite", f"qcow2:{tmp_path}/new", data=data), 4, "")
        assert contents(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("whom", ["writer", "qemu-nbd"])
def test_nothing_is_left_of_an_image_when_somebody_is_killed(tmp_path: Path, whom: str, number: int) -> None:
    with subprocess.Popen(
        ["qb-volwrite", f"qcow2:{tmp_path}/new"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdin is not None
        process.stdin.write(STREAM[: 2 * MIB])
        process.stdin.flush()
        wait_until(
            lambda: any(b"qemu-nbd" in Path(f"/proc/{each}/cmdline").read_bytes() for each in children(process.pid)),
            "qemu-nbd runs",
        )
        time.sleep(0.3)
        (child,) = children(process.pid)
        os.kill(process.pid if whom == "writer" else child, number)
        if whom == "writer":
            assert process.wait(20) == -number
        else:
            _, said = process.communicate(STREAM[2 * MIB :])
            assert process.returncode == 1 and said.count(b"\n") == 1 and b"qemu-nbd" in said, said
    wait_until(lambda: not read(f"/proc/{child}/cmdline"), "qemu-nbd is gone")
    assert contents(tmp_path) == []


def test_an_image_that_does_not_pass_the_check_gets_no_name(tmp_path: Path) -> None:
    need("qemu-img")
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/qemu-img"
    fake.write_text('#!/bin/sh\n[ "$1" != check ] || { echo "3 errors" >&2; exit 2; }\nexec /usr/bin/qemu-img "$@"\n')
    fake.chmod(0o755)
    (tmp_path / "to").mkdir()
    path = f"{tmp_path}/bin:{environment()['PATH']}"
    failed(run("qb-volwrite", f"qcow2:{tmp_path}/to/new", data=STREAM, PATH=path), 1, "qemu-img check: 3 errors")
    assert contents(tmp_path / "to") == []


def test_no_room(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "tmpfs", "tmpfs", "-o", "size=2M") as place:
        failed(run("qb-volwrite", f"qcow2:{place}/new", data=STREAM), 1, "No space left on device")
        assert contents(place) == []


# --- whole backups ---


def test_several_images_are_filled_in_one_pass(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "vm1").mkdir()
    for name in ("root", "private"):
        shutil.copy(disk, tmp_path / f"vm1/{name}.img")
    tar = "tar", "--format=gnu", "-C", tmp_path, "-cSf", "-", "vm1/root.img", "vm1/private.img"
    data = subprocess.run(tar, capture_output=True, check=True).stdout
    words = f"root=qcow2:{tmp_path}/to/one", f"private=qcow2:{tmp_path}/to/deep/two,cluster_size=4k"
    argv = "qb-tarextract", "--volumes", "--parents", "vm1"
    failed(run(*argv, *words, data=data[: 2 * MIB]), 4, "")
    assert contents(tmp_path / "to") == []
    assert run(*argv, *words, data=data).stderr == b""
    same(tmp_path / "to/one", disk)
    same(tmp_path / "to/deep/two", disk)
    again = f"root=qcow2:{tmp_path}/x", f"private=qcow2:{tmp_path}/x,cluster_size=4k"
    failed(run(*argv, *again, data=data), 5, "are the same volume")


def test_a_backup_of_an_image_goes_to_any_kind(disk: Path, image: Path, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("correct horse\n")
    (tmp_path / "passphrase").chmod(0o600)
    secret = {"QB_PASSPHRASE_FILE": f"{tmp_path}/passphrase"}
    archive = run("qb-backup", "create", "-q", "--logn", "10", f"qcow2:{image}", **secret)
    assert (archive.returncode, archive.stderr) == (0, b"")
    assert b"disk\t" in run("qb-backup", "list", "-", data=archive.stdout, **secret).stdout
    to = "--map", f"disk:root=qcow2:{tmp_path}/new.qcow2,compress=on"
    done = run("qb-backup", "restore", "-q", *to, "-", data=archive.stdout, **secret)
    assert (done.returncode, done.stderr) == (0, b"")
    same(tmp_path / "new.qcow2", disk)
    done = run("qb-backup", "restore", "-q", "--skip-existing", *to, "-", data=archive.stdout, **secret)
    assert (done.returncode, done.stderr) == (0, b"")
    failed(run("qb-backup", "restore", "-q", *to, "-", data=archive.stdout, **secret), 5, "already exists")
    other = tmp_path / "other.qcow2"
    qemu_img("create", "-f", "qcow2", other, "1M")
    again = "restore", "-q", "--skip-existing", "--map", f"disk:root=qcow2:{other}", "-"
    done = run("qb-backup", *again, data=archive.stdout, **secret)
    assert done.returncode == 0 and b"is skipped, but it has 1048576 bytes" in done.stderr
    damage(other, 0, b"x")
    done = run("qb-backup", *again, data=archive.stdout, **secret)
    assert done.returncode == 0 and b"is skipped, but" in done.stderr and b"is not a qcow2 image" in done.stderr
    done = run("qb-backup", "restore", "-q", "--to", tmp_path / "to", "-", data=archive.stdout, **secret)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "to/disk/root.img").read_bytes() == disk.read_bytes()
