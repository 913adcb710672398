"""The targets of a restore: what is refused before anything is written, and that the checks change nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import machines
import pytest
from devices import file_system, loop

from qbtools.domains import inventory
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Failed, QbError, Refused, UsageError
from qbtools.runs import targets
from qbtools.runs.filling import Filling, Where, check_names, read_only
from qbtools.runs.opening import Routes
from qbtools.runs.targets import How, Wanted, check_room
from qbtools.volumes.kind import Room, TargetOptions

MIB = 1 << 20
SIZE = 4 * MIB


def volume(name: str, size: int = SIZE) -> dict[str, str]:
    return {"name": name, "size": str(size), "save_on_stop": "True"}


def archive(data: int | None = None) -> Metadata:
    """a with root and private, b with root. data: what the archive says that each domain has."""
    features = None if data is None else {"backup-size": str(data)}
    return machines.metadata(
        machines.vm("a", volumes=(volume("root"), volume("private")), features=features),
        machines.vm("b", volumes=(volume("root"),), features=features),
    )


def wanted(words: Sequence[str]) -> list[Wanted]:
    return [Wanted(*pair) for pair in zip(inventory.entries(archive()), words, strict=False)]


def check(*words: str, how: How | None = None) -> list[str]:
    """The keys of the targets that are still to be filled."""
    how = how or How(TargetOptions(create=True))
    return [one.key for one in targets.check(wanted(words), how, lambda _: None)[0]]


OVER = How(TargetOptions(create=True, overwrite=True))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_good_ones(place: Path) -> None:
    (place / "old").write_bytes(bytes(SIZE))
    assert check("x", "./y", f"file:{place}/z") == ["a:root", "a:private", "b:root"]
    assert check("old", "y", how=OVER) == ["a:root", "a:private"]
    assert os.listdir(place) == ["old"]


@pytest.mark.parametrize("words", [("x", "x"), ("x", "./z/../x"), ("old", "hard"), ("old", "soft"), ("file:x", "x")])
@pytest.mark.parametrize("how", [OVER, OVER._replace(skip=True), OVER._replace(parents=True)])
def test_two_that_are_the_same(words: tuple[str, str], how: How, place: Path) -> None:
    (place / "old").touch()
    os.link("old", "hard")
    (place / "soft").symlink_to("old")
    (place / "z").mkdir()
    with pytest.raises(Refused, match=f"a:root and a:private have the same target: {words[1]}"):
        check(*words, how=how)


def test_a_device_by_two_names(place: Path) -> None:
    (place / "disk").write_bytes(bytes(SIZE))
    with loop(place / "disk") as device:
        (place / "link").symlink_to(device)
        with pytest.raises(Refused, match="have the same target"):
            check(str(device), "link", how=OVER)


def test_a_file_that_is_kept(place: Path) -> None:
    (place / "a.qb").touch()
    with pytest.raises(Refused, match="a:private cannot be written over the archive: ./a.qb"):
        check("x", "./a.qb", how=OVER._replace(kept={"the archive": "a.qb"}))


@pytest.mark.parametrize(
    ("word", "kind", "message"),
    [
        ("old", Refused, "old already exists"),
        ("none/x", UsageError, "does not exist"),
        ("./none/x", Failed, "cannot create ./none/x: No such file"),
        ("dir", UsageError, "is a directory"),
        ("file:none/x", Failed, "cannot create none/x: No such file"),
        ("fifo", UsageError, "is a pipe"),
    ],
)
def test_the_last_one_is_bad(word: str, kind: type[QbError], message: str, place: Path) -> None:
    (place / "old").touch()
    (place / "dir").mkdir()
    os.mkfifo("fifo")
    with pytest.raises(kind, match=message):
        check("x", "y", word)
    assert sorted(os.listdir(place)) == ["dir", "fifo", "old"]


def test_sizes(place: Path) -> None:
    (place / "large").write_bytes(bytes(SIZE + 1))
    with pytest.raises(Refused, match="large has 4194305 bytes, the volume only 4194304"):
        check("large", how=OVER)
    assert check("large", how=How(TargetOptions(overwrite=True, shrink=True))) == ["a:root"]
    (place / "disk").write_bytes(bytes(SIZE - MIB))
    with loop(place / "disk") as device, pytest.raises(Refused, match="is too small: it has 3145728 bytes"):
        check(str(device), how=OVER)


def test_missing_directories(place: Path) -> None:
    how = How(TargetOptions(create=True), parents=True)
    assert check("file:./n/a/root.img", "file:./n/b.img", how=how) == ["a:root", "a:private"]
    assert os.listdir(place) == []
    (place / "n").touch()
    with pytest.raises(Failed, match="cannot create ./n/a/root.img: .*/n is not a directory"):
        check("file:./n/a/root.img", how=OVER._replace(parents=True))
    with pytest.raises(Refused, match="have the same target"):
        check("file:./m/x", "file:./m/x/y", how=how)


def test_what_exists_is_skipped(place: Path) -> None:
    (place / "old").write_bytes(bytes(SIZE))
    (place / "other").write_bytes(bytes(1))
    told: list[str] = []
    how = How(TargetOptions(create=True), skip=True)
    left, _rooms = targets.check(wanted(["old", "new", "other"]), how, told.append)
    assert [one.key for one in left] == ["a:private"]
    assert told == ["other is skipped, but it has 1 bytes and b:root has 4194304"]
    with loop(place / "old") as device, pytest.raises(Refused, match="is written in place, so it may be incomplete"):
        check(str(device), how=how)


# --- room ---


def room(data: int | None, free: int, sealed: int | None = None, **more: object) -> list[str]:
    """The warnings for all three volumes (12 MiB) in one place. data: of each domain. sealed: bytes of the archive."""
    told: list[str] = []
    ones = wanted(["x", "y", "z"])
    place = Room(("place",), free)._replace(**more)  # type: ignore[arg-type]
    check_room(archive(data), ones, {one.key: place for one in ones}, sealed, told.append)
    return told


def test_room() -> None:
    assert room(5 * MIB, 12 * MIB) == []
    assert room(4 * MIB, 11 * MIB) == [
        "there may not be enough room for x and 2 more: 11534336 bytes are free, the volumes can grow to 12582912 bytes"
    ]
    # Domains of 6 MiB of data at least: 5.4 with their maps, less one MiB of rounding for each volume.
    with pytest.raises(
        Refused, match="not enough room for x and 2 more: 4194304 bytes are free, the data has at least"
    ):
        room(6 * MIB, 4 * MIB)
    assert len(room(None, 0)) == 1, "an archive that does not tell proves nothing"
    assert len(room(6 * MIB, 4 * MIB, packed=True)) == 1, "what is compressed may fit"
    assert room(6 * MIB, 2 * MIB, freed=4 * MIB) == [], "what is replaced gives its room back"
    with pytest.raises(Refused, match="not enough room"):
        room(None, 11 * MIB, whole=True)
    assert room(None, 12 * MIB, whole=True) == []
    with pytest.raises(Refused, match="not enough room"):
        room(None, 14 * MIB, whole=True, unit=5 * MIB)  # three volumes of 4 MiB, each rounded up
    assert room(None, 15 * MIB, whole=True, unit=5 * MIB) == []


def test_data_without_holes_may_be_zeros() -> None:
    assert len(room(16 * MIB, 8 * MIB)) == 1
    assert len(room(16 * MIB, 8 * MIB, sealed=1 * MIB)) == 1
    with pytest.raises(Refused, match="not enough room"):
        room(16 * MIB, 8 * MIB, sealed=9 * MIB)


def test_data_of_volumes_that_go_elsewhere_does_not_count() -> None:
    told: list[str] = []
    ones = wanted(["x"])
    check_room(archive(6 * MIB), ones, {"a:root": Room(("place",), MIB)}, None, told.append)
    assert len(told) == 1


def test_the_room_of_a_small_file_system(place: Path) -> None:
    with file_system(place, "ext4", 8 * MIB) as small:
        _left, rooms = targets.check(wanted([f"{small}/x", f"{small}/y"]), OVER, lambda _: None)
        assert rooms["a:root"].where == rooms["a:private"].where
        assert 0 < rooms["a:root"].free < 8 * MIB and not rooms["a:root"].packed
        assert os.listdir(small) == ["lost+found"]


# --- with a complete run ---


def fill(where: Where) -> tuple[Filling, Routes]:
    filling = Filling(where, lambda _: None, lambda _: None)
    return filling, filling.metadata(archive())


def test_only_volumes() -> None:
    _filling, routes = fill(Where("./to", None, {}, ("a:private", "b")))
    assert [target.rpartition("/")[2] for _name, target in routes] == ["private.img", "root.img"]


def test_directories_are_made_for_files_only(place: Path) -> None:
    (place / "disk").write_bytes(bytes(SIZE))
    with loop(place / "disk") as device:
        _filling, routes = fill(Where("./to", None, {"a:root": str(device)}, ("a",), overwrite=True))
        assert [("--parents" in target) for _name, target in routes] == [False, True]


def test_nothing_left_to_do_is_good(place: Path) -> None:
    (place / "v").write_bytes(bytes(SIZE))
    filling, routes = fill(Where(None, None, {"b:root": "v"}, ("b",), skip=True))
    assert routes == []
    for entry in inventory.entries(archive()):
        filling.passed(entry.archive_name)
    filling.finish()


@pytest.mark.parametrize("word", ["", ":", "a:", ":b", "a:b:c", "a/b", "-a"])
def test_an_only_that_is_none(word: str) -> None:
    with pytest.raises(UsageError, match="--only: "):
        read_only([word])


def test_names_that_the_archive_does_not_have() -> None:
    entries = inventory.entries(archive())
    check_names(entries, ("a", "b:root"))
    for word in ("c", "a:c", "c:root"):
        with pytest.raises(UsageError, match=f"the archive has no {'volume' if ':' in word else 'domain'} {word}"):
            check_names(entries, (word,))
