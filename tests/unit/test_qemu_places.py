"""Which bytes of an image are read in its files, and what qemu-img may say about them."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import need

from qbtools.descriptors import Place
from qbtools.errors import Damaged, Failed, QbError
from qbtools.volumes.kind import SourceOptions
from qbtools.volumes.qemu import places, server
from qbtools.volumes.qemu.chain import Chain
from qbtools.volumes.qemu.source import ImageSource

KIB, MIB = 1 << 10, 1 << 20
DATA = random.Random(7).randbytes(3 * MIB)


def qemu(*words: str | Path) -> None:
    need("qemu-img", "qemu-io", "qemu-nbd")
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image with data in two places."""
    with (tmp_path / "disk").open("wb") as file:
        file.truncate(8 * MIB)
        file.write(DATA)
        file.seek(5 * MIB)
        file.write(DATA[: 64 * KIB])
    qemu("qemu-img", "convert", "-f", "raw", "-O", "qcow2", tmp_path / "disk", tmp_path / "image")
    return tmp_path / "image"


def pieces(path: Path, **options: str) -> list[Place | bytes]:
    """What is to be read of all the data of the disk, in which way."""
    with ImageSource(str(path), "qcow2", SourceOptions(**options)) as source:  # type: ignore[arg-type]
        found = [each if isinstance(each, Place) else bytes(each) for each in source.blocks(source.extents())]
        if not options:
            source.check()
        return [
            each._replace(fd=source._chain.fds.index(each.fd)) if isinstance(each, Place) else each for each in found
        ]


def test_plain_clusters_are_read_in_the_file(image: Path) -> None:
    found = pieces(image)
    assert [each.length for each in found if isinstance(each, Place)] == [MIB, MIB, MIB, 64 * KIB]
    whole = image.read_bytes()
    data = [whole[each.offset : each.offset + each.length] for each in found if isinstance(each, Place)]
    assert b"".join(data) == DATA + DATA[: 64 * KIB]


def test_each_file_of_a_chain(image: Path, tmp_path: Path) -> None:
    qemu("qemu-img", "create", "-f", "qcow2", "-b", image, "-F", "qcow2", tmp_path / "top")
    qemu("qemu-io", "-c", f"write -P 5 {MIB} {64 * KIB}", tmp_path / "top")
    found = pieces(tmp_path / "top")
    assert [(each.fd, each.length) for each in found if isinstance(each, Place)] == [
        (1, MIB), (0, 64 * KIB), (1, MIB), (1, MIB - 64 * KIB), (1, 64 * KIB)
    ]  # fmt: skip


def test_what_is_read_through_qemu_nbd(image: Path, tmp_path: Path) -> None:
    """Compressed clusters, between others that are not; data in a further file; the current state."""
    text = (b"a line of text" * MIB)[: 3 * MIB]
    (tmp_path / "text").write_bytes(text)
    qemu("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", tmp_path / "text", tmp_path / "packed")
    qemu("qemu-io", "-c", f"write -P 5 {MIB} {64 * KIB}", tmp_path / "packed")
    found = pieces(tmp_path / "packed")
    assert b"".join(each for each in found if isinstance(each, bytes)) == (
        text[:MIB] + b"\5" * 64 * KIB + text[MIB + 64 * KIB :]
    )
    qemu("qemu-io", "-c", f"write -P 6 0 {MIB + 512}", tmp_path / "packed")
    assert [each.length for each in pieces(tmp_path / "packed") if isinstance(each, Place)] == [MIB, 64 * KIB]
    words = "-o", f"data_file={tmp_path}/data,data_file_raw=on"
    qemu("qemu-img", "convert", "-O", "qcow2", *words, image, tmp_path / "apart")
    for path, options in (tmp_path / "apart", {}), (image, {"state": "current"}):
        assert {type(each) for each in pieces(path, **options)} == {bytes}


def test_only_what_differs_is_read(image: Path) -> None:
    with ImageSource(str(image), "qcow2", SourceOptions()) as source:
        parts = [(KIB, 2 * KIB), (2 * MIB - KIB, 2 * KIB), (5 * MIB, KIB)]
        data = [os.pread(each.fd, each.length, each.offset) for each in source.blocks(parts) if isinstance(each, Place)]
        source.check()
    assert b"".join(data) == DATA[KIB : 3 * KIB] + DATA[2 * MIB - KIB : 2 * MIB + KIB] + DATA[:KIB]


PART = '{"start": %d, "length": %d, "depth": %d, "present": true, "zero": %s, "data": true, "offset": %d}'


@pytest.mark.parametrize(
    ("printed", "error", "message"),
    [
        ("[" + PART % (0, 512, 0, "false", 0) + "]", None, ""),
        ("[" + PART % (0, 512, 0, "false", 0) + ",", Failed, "cannot understand what it prints"),
        ("[" + PART % (0, 512, 0, "false", 0)[:40], Failed, "cannot understand what it prints"),
        ("", Failed, "cannot understand what it prints"),
        ("[]", Failed, "cannot understand what it prints"),
        ("x" * 99999, Failed, "cannot understand what it prints"),
        ("[" + PART % (0, 512, 1, "false", 0) + "]", Failed, "cannot understand what it prints"),
        ("[" + PART % (512, 9, 0, "true", 0) + ",\n" + PART % (0, 9, 0, "true", 0) + "]", Failed, "cannot understand"),
        ("[" + PART % (0, MIB, 0, "false", 8 * MIB) + "]", Damaged, "has lost its end: byte 0 of the disk"),
        ("[" + PART % (0, MIB, 0, "true", 8 * MIB) + "]", Damaged, "has lost its end: byte 0 of the disk"),
        ("[" + PART % (MIB, 8 * MIB, 0, "false", 0) + "]", Damaged, "has lost its end: byte 4"),
    ],
    ids=str,
)
def test_what_qemu_img_prints(
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    printed: str,
    error: type[QbError] | None,
    message: str,
) -> None:
    use(tmp_path, monkeypatch, f"printf '%s\\n' '{printed}'")
    with Chain(str(image), "qcow2", server.FIRST) as chain:
        if error is None:
            assert list(places.known("x", chain)) == [(0, 512, chain.fds[0], 0)]
            return
        with pytest.raises(error, match=message):
            list(places.known("x", chain))


def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A program plays qemu-img."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/qemu-img").write_text(f"#!/bin/sh\n{text}\n")
    (tmp_path / "bin/qemu-img").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("end", "message"),
    [("kill -9 $$", "was killed by SIGKILL"), ("echo 'qemu-img: cannot do that' >&2; exit 1", "cannot do that")],
)
def test_a_map_whose_writer_fails(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, message: str
) -> None:
    """What it has printed before is right, but it need not be everything."""
    use(tmp_path, monkeypatch, f"echo '[{PART % (0, 512, 0, 'false', 0)}]'; {end}")
    with Chain(str(image), "qcow2", server.FIRST) as chain, pytest.raises(QbError, match=message):
        list(places.known("x", chain))


def test_the_map_is_read_to_its_end(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what comes after the last data: that of a file that has lost its end may read as zeros."""
    first, last = [each for each in pieces(image) if isinstance(each, Place)][::3]
    lines = [PART % (0, 3 * MIB, 0, "false", first.offset), PART % (5 * MIB, 64 * KIB, 0, "false", last.offset)]
    use(
        tmp_path,
        monkeypatch,
        f"echo '[{lines[0]},'; echo '{lines[1]},'; echo '{PART % (7 * MIB, 9, 0, 'true', 1 << 40)}]'",
    )
    with pytest.raises(Damaged, match="has lost its end: byte 7340032 of the disk is missing"):
        pieces(image)


def cut(image: Path, size: Callable[[int], int]) -> None:
    os.truncate(image, size(image.stat().st_size))


def test_less_than_a_cluster_may_be_missing(image: Path) -> None:
    """QEMU allows that, too: it reads as zeros."""
    cut(image, lambda size: size - 65535)
    found = pieces(image)
    assert found[-1] == DATA[:1] + bytes(65535)
    cut(image, lambda size: size - 1)
    with pytest.raises(Damaged, match="has lost its end: byte 5242880 of the disk is missing"):
        pieces(image)


def test_tables_that_are_missing(image: Path) -> None:
    header = image.read_bytes()[:104]
    table = int.from_bytes(header[40:48], "big")
    for size in (table + 8, table + 7, 4096):
        os.truncate(image, size)
        with Chain(str(image), "qcow2", server.FIRST) as chain, pytest.raises(Damaged, match="a table is missing"):
            places.check_tables("x", chain)
