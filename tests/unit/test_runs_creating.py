"""The content of an archive of named volumes, and the list for the stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from qbtools.errors import Failed, UsageError
from qbtools.runs import creating
from qbtools.runs.creating import Contents, Passages, Saved
from qbtools.runs.hearing import Happened
from qbtools.volumes.kind import SourceOptions


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def how(warnings: list[str]) -> SourceOptions:
    return SourceOptions(warn=warnings.append)


def image(place: Path, name: str, size: int = 8192) -> str:
    (place / name).write_bytes(b"x" * size)
    return str(place / name)


def test_a_listing() -> None:
    contents = Contents(b"<qubes/>", [Saved("vm1/root.img", "volume:1:::\udcff", 3), Saved("vm2/a", "?", 4)])
    assert contents.total == 7
    assert contents.listing() == (b"qubes.xml\tinline:8\nvm1/root.img\tvolume:1:::\xff\nvm2/a\t?\nend\n<qubes/>")


def test_names(tmp_path: Path, how: SourceOptions, warnings: list[str]) -> None:
    source = image(tmp_path, "work.old.img")
    contents = creating.of_words([source, f"bank:private={source}"], how)
    assert [(file.archive_name, file.source.rpartition(":")[2]) for file in contents.files] == [
        ("vm1/root.img", source),
        ("vm2/private.img", source),
    ]
    assert b'name="name">work<' in contents.metadata.replace(b"'", b'"')
    assert warnings == []


def test_the_order_of_a_series_does_not_depend_on_the_command_line(tmp_path: Path, how: SourceOptions) -> None:
    source = image(tmp_path, "a:b.img")
    words = [f"{name}={source}" for name in ("work:root", "bank:private", "bank:root", "work:private")]
    indexing = creating.Indexing({"bank": 3, "work": 2}, lambda name, _word, _held: f"changes:{name}:")
    first, second = (creating.contents(creating.look(some, how), how, indexing) for some in (words, words[::-1]))
    assert first == second
    names = ["vm2/private.img", "vm2/root.img", "vm3/private.img", "vm3/root.img"]
    assert [file.archive_name for file in first.files] == names
    assert first.files[0].source == f"changes:vm2/private.img:8192::10%:file:{source}"
    assert f"\tas:work:private=changes:{names[0]}:" in first.listing().decode()


def test_a_volume_that_qubes_would_not_restore(tmp_path: Path, how: SourceOptions, warnings: list[str]) -> None:
    creating.of_words([f"a:data={image(tmp_path, 'x')}"], how)
    assert len(warnings) == 1


@pytest.mark.parametrize("name", ["1vm", "a b", "-a", "dom0", ""])
def test_a_name_that_no_domain_has(name: str, tmp_path: Path, how: SourceOptions) -> None:
    with pytest.raises((UsageError, Failed)):
        creating.of_words([f"{name}:root={image(tmp_path, 'x')}"], how)


def test_a_volume_twice(tmp_path: Path, how: SourceOptions) -> None:
    source = image(tmp_path, "a.img")
    with pytest.raises(UsageError, match="a:root is given twice"):
        creating.of_words([source, f"a:root={source}"], how)


def test_a_newline_in_a_name(tmp_path: Path, how: SourceOptions) -> None:
    with pytest.raises(UsageError, match="newline"):
        creating.of_words([f"a:root={image(tmp_path, chr(10))}"], how)


class Stages:
    """Replaces the wiring."""

    def __init__(self, *events: Happened, statuses: tuple[int, ...] | None = (0, 0)) -> None:
        self._events, self._statuses = events, statuses
        self.told: list[object] = []

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def tell(self, text: object) -> None:
        self.told.append(text)

    def run(self, happened: object) -> object:
        for event in self._events:
            happened(event)  # type: ignore[operator]
        return self._statuses, []


CONTENTS = Contents(b"", [Saved("a", "?"), Saved("b", "x")])
ALL = [Happened(*words) for words in (("source", "a"), ("begin", "a"), ("read", "a"), ("begin", "b"), ("read", "b"))]


def save(stages: Stages) -> list[str]:
    read: list[str] = []
    creating.save(stages, CONTENTS, lambda name: f"of {name}", read.append, Passages())  # type: ignore[arg-type]
    return read


def test_a_run() -> None:
    stages = Stages(*ALL)
    assert save(stages) == ["a", "b"]
    assert stages.told == [CONTENTS.listing(), "a\tof a\n"]


@pytest.mark.parametrize("missing", range(2, 5))
def test_a_file_that_was_not_read_is_missed(missing: int) -> None:
    """Even if the stages report success."""
    if ALL[missing].event == "begin":
        return
    with pytest.raises(Failed, match="was not saved, although all stages succeeded"):
        save(Stages(*ALL[:missing], *ALL[missing + 1 :]))


@pytest.mark.parametrize("statuses", [None, (0, 1), (137, 0)])
def test_stages_that_failed(statuses: tuple[int, ...] | None) -> None:
    with pytest.raises(Failed):
        save(Stages(*ALL, statuses=statuses))


# --- going on without a file ---


def save_some(stages: Stages, source: object = lambda name: f"of {name}") -> tuple[Passages, list[tuple[str, str]]]:
    lost: list[tuple[str, str]] = []
    passages = Passages()

    def take(name: str, reason: str) -> None:
        lost.append((name, reason))

    creating.save(stages, CONTENTS, source, lambda _name: None, passages, take)  # type: ignore[arg-type]
    return passages, lost


COMPLETE = Happened("complete", "qb-manifest")
FAILED = Happened("failed", "a", reason="a: no disk")


def test_a_file_that_fails_does_not_end_the_others() -> None:
    stages = Stages(*ALL[:2], FAILED, *ALL[3:], COMPLETE, statuses=(1, 0))
    passages, lost = save_some(stages)
    assert passages.complete and lost == [("a", "no disk")]
    assert (passages.log["a"].ended, passages.log["a"].reason) == (None, "no disk")


def test_a_source_that_cannot_be_given() -> None:
    def source(_name: str) -> str:
        raise Failed("no snapshot")

    stages = Stages(ALL[0], Happened("failed", "a"), *ALL[3:], COMPLETE, statuses=(1, 0))
    passages, lost = save_some(stages, source)
    assert passages.complete and lost == [("a", "no snapshot")]
    assert stages.told[1:] == ["a\t!\n"]


@pytest.mark.parametrize(
    ("events", "statuses"),
    [
        ((*ALL[:2], FAILED, *ALL[3:]), (1, 0)),  # it was never written to its end
        ((*ALL[:2], FAILED, *ALL[3:], COMPLETE), (1, 1)),  # or not stored
        ((*ALL[:2], FAILED, *ALL[3:], COMPLETE), None),
        ((*ALL, COMPLETE), (1, 0)),  # something else failed
        ((*ALL[:2], FAILED, COMPLETE), (1, 0)),  # another file is missing
    ],
)
def test_an_archive_that_is_not_complete(events: tuple[Happened, ...], statuses: tuple[int, ...] | None) -> None:
    with pytest.raises(Failed):
        save_some(Stages(*events, statuses=statuses))
