"""The main job: a volume of every size and shape is saved and restored, byte for byte the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from devices import loop
from support import bash, need, run
from volumefiles import filled, room, same, shapes, sparse, unexpected

CHUNK = 4096
SIZES = [0, 1, 511, 512, 513, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A passphrase, and a volume of each size and shape, named by it."""
    place = tmp_path_factory.mktemp("roundtrip")
    (place / "passphrase").write_text("round trip\n")
    (place / "passphrase").chmod(0o600)
    for size in SIZES:
        filled(place / str(size), size)
    shapes(place)
    return place


SHAPES = ["hole-first", "hole-last", "all-hole", "alternating", "far-apart", "huge"]


def by_hand(place: Path, text: str, **names: str) -> bytes:
    """Runs a pipe as typed; returns its output."""
    done = bash(f"cd {place} && {text}", QB_PASSPHRASE_FILE=f"{place}/passphrase", **names)
    assert (done.returncode, unexpected(done.stderr)) == (0, [])
    return done.stdout


def inner_size(size: int) -> int:
    """Bytes of the inner archive of a volume without holes: header, data, padding, end."""
    return 512 + -(-size // 512) * 512 + 1024


# --- by hand ---


# All sizes: below, by qb-backup, without compression.
@pytest.mark.parametrize("name", [str(CHUNK + 1), *SHAPES])
def test_by_hand(name: str, folder: Path, tmp_path: Path) -> None:
    by_hand(
        folder,
        "qb-volread $NAME | qb-tarwrite vm1/root.img | gzip -1c | qb-seal --logn 10 --chunk-size 64K vm1/root.img"
        " >$OUT.qb && qb-unseal vm1/root.img <$OUT.qb | gzip -dc | qb-tarextract | qb-volwrite $OUT",
        NAME=name,
        OUT=str(tmp_path / "out"),
    )
    assert same(folder / name, tmp_path / "out")
    assert room(tmp_path / "out") <= room(folder / name) + (1 << 17)


@pytest.mark.parametrize(
    ("size", "chunk", "jobs"),
    [
        (1, CHUNK, 1),
        (CHUNK + 1, CHUNK, 3),
        # The stream is one byte longer than a chunk, just as long, one shorter; and of exactly three chunks.
        *((5000, inner_size(5000) + off, 3) for off in (-1, 0, 1)),
        (5000, inner_size(5000), 1),
        (3 * CHUNK, inner_size(3 * CHUNK) // 3, 3),
        (0, 512, 1),
        (513, 512, 3),
        (0, 7, 3),
    ],
)
def test_at_the_edges_of_chunks(size: int, chunk: int, jobs: int, tmp_path: Path) -> None:
    """Uncompressed, so the size of the stream is known: the number of chunks is right, and the last is not full."""
    filled(tmp_path / "volume", size)
    (tmp_path / "passphrase").write_text("round trip\n")
    (tmp_path / "passphrase").chmod(0o600)
    few = "--opaque" if chunk < 512 else ""  # the first chunk does not even hold a tar header
    listed = by_hand(
        tmp_path,
        "qb-volread volume | qb-tarwrite a |"
        f" qb-seal -j {jobs} {few} --logn 10 --chunk-size {chunk} --compression none a >a.qb &&"
        f" qb-unseal -j {jobs} a <a.qb | qb-tarextract | qb-volwrite out && qb-unseal --list <a.qb",
    )
    length = inner_size(size)
    assert listed.decode().split() == ["a", str(length // chunk + 1), str(length)]
    assert same(tmp_path / "volume", tmp_path / "out")


# gzip: above; none: at the edges of chunks.
@pytest.mark.parametrize("compression", ["bzip2", "xz", "zstd"])
def test_each_compression_by_hand(compression: str, folder: Path, tmp_path: Path) -> None:
    need(compression)
    by_hand(
        folder,
        f"qb-volread hole-first | qb-tarwrite a | {compression} |"
        f" qb-seal --logn 10 --compression {compression} a >$OUT.qb &&"
        f" qb-unseal a <$OUT.qb | {compression} -d | qb-tarextract | qb-volwrite $OUT",
        OUT=str(tmp_path / "out"),
    )
    assert same(folder / "hole-first", tmp_path / "out")


def test_pieces_joined_by_hand(folder: Path, tmp_path: Path) -> None:
    """Header, files and manifest made one by one; a file with a full key derivation for once."""
    by_hand(
        folder,
        """
        id=$(qb-header id) && {
            qb-header write --logn 10 --backup-id "$id" --chunk-size 4096 &&
            cheap= && for name in 513 all-hole; do
                qb-volread $name | qb-tarwrite vm1/$name | gzip -c |
                    qb-seal $cheap --backup-id "$id" --chunk-size 4096 --record $OUT.records vm1/$name || exit
                cheap='--logn 10'
            done &&
            qb-manifest --logn 10 --backup-id "$id" $OUT.records
        } >$OUT.qb && qb-unseal --verify --expect-id "$id" <$OUT.qb &&
            qb-unseal --to-command 'gzip -dc | qb-tarextract "$QB_NAME" | qb-volwrite $OUT.${QB_NAME#*/}' <$OUT.qb
        """,
        OUT=str(tmp_path / "out"),
    )
    for name in ("513", "all-hole"):
        assert same(folder / name, tmp_path / f"out.{name}")


def test_plain_bytes_on_both_sides(folder: Path, tmp_path: Path) -> None:
    """--raw works with external programs."""
    by_hand(
        folder,
        "qb-volread --raw hole-first | cmp - hole-first && qb-tarwrite --raw a <hole-first | gzip -c |"
        " qb-seal --logn 10 a | qb-unseal a | gzip -dc | qb-tarextract --raw | qb-volwrite --raw $OUT",
        OUT=str(tmp_path / "out"),
    )
    assert same(folder / "hole-first", tmp_path / "out")
    assert room(tmp_path / "out") < 2 << 20


# --- by qb-backup ---


@pytest.mark.parametrize(
    ("names", "chunk", "compression", "reading"),
    [([*map(str, SIZES)], CHUNK, "none", "cat $OUT.qb | {} -"), (SHAPES, 1 << 18, "gzip", "{} $OUT.qb")],
    ids=["sizes", "shapes"],
)
def test_all_of_them_by_qb_backup(
    names: list[str], chunk: int, compression: str, reading: str, folder: Path, tmp_path: Path
) -> None:
    """Several machines in one archive; from a pipe and from a file, in one pass each."""
    targets = {name: f"vm{at // 4}/v{name}.img" for at, name in enumerate(names)}
    volumes = " ".join(f"vm{at // 4}:v{name}={name}" for at, name in enumerate(names))
    by_hand(
        folder,
        f"qb-backup create -q --logn 10 --chunk-size {chunk} --compress {compression} -o $OUT.qb {volumes} &&"
        f" {reading.format('qb-backup verify')} && {reading.format('qb-backup restore --to $OUT')}",
        OUT=str(tmp_path / "out"),
    )
    to = tmp_path / "out"
    assert {str(path.relative_to(to)) for path in to.rglob("*") if not path.is_dir()} == set(targets.values())
    for name, target in targets.items():
        assert same(folder / name, to / target)
        assert room(to / target) <= room(folder / name) + (1 << 17)


def test_standard_output_and_standard_input(folder: Path, tmp_path: Path) -> None:
    by_hand(
        folder,
        "qb-backup create -q --logn 10 a:root=513 hole-first | qb-backup restore --to $OUT",
        OUT=str(tmp_path / "out"),
    )
    assert same(folder / "513", tmp_path / "out/a/root.img")
    assert same(folder / "hole-first", tmp_path / "out/hole-first/root.img")


# --- block devices ---


@pytest.mark.parametrize("larger", [0, 1 << 20])
def test_loop_devices_by_hand(larger: int, folder: Path, tmp_path: Path) -> None:
    """What was on the target before, and what is behind the volume on it, reads as zeros."""
    size = 3 << 20
    sparse(tmp_path / "source", size, (1 << 20, 70_000), (size - 512, 512))
    filled(tmp_path / "target", size + larger)
    with loop(tmp_path / "source", "--read-only") as source, loop(tmp_path / "target") as target:
        by_hand(
            folder,
            f"qb-volread {source} | qb-tarwrite a | gzip -1c | qb-seal --logn 10 a | qb-unseal a | gzip -dc |"
            f" qb-tarextract | qb-volwrite --overwrite --verify {target}",
        )
    expected = (tmp_path / "source").read_bytes() + bytes(larger)
    assert (tmp_path / "target").read_bytes() == expected
    assert room(tmp_path / "target") < 1 << 20


def test_loop_devices_by_qb_backup(folder: Path, tmp_path: Path) -> None:
    size = 3 << 20
    sparse(tmp_path / "source", size, (1 << 20, 70_000), (size - 512, 512))
    filled(tmp_path / "target", size)
    with loop(tmp_path / "source", "--read-only") as source, loop(tmp_path / "target") as target:
        by_hand(
            folder,
            f"qb-backup create -q --logn 10 -o $OUT.qb vm1:root={source} {source} &&"
            f" qb-backup restore --only vm1 --map vm1:root={target} --overwrite $OUT.qb &&"
            f" qb-backup restore --to $OUT $OUT.qb",
            OUT=str(tmp_path / "out"),
        )
        name = os.path.basename(source)
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()
    assert same(tmp_path / "source", tmp_path / "out/vm1/root.img")
    assert same(tmp_path / "source", tmp_path / f"out/{name}/root.img")


def test_the_same_volume_twice_is_the_same_stream_but_never_the_same_archive(folder: Path) -> None:
    text = "qb-volread far-apart | qb-tarwrite a | gzip -c"
    assert by_hand(folder, text) == by_hand(folder, text)
    archives = {run("bash", "-c", f"cd {folder} && {text} | qb-seal --logn 10 --passphrase-file passphrase a").stdout}
    archives.add(by_hand(folder, f"{text} | qb-seal --logn 10 a"))
    assert len(archives) == 2
