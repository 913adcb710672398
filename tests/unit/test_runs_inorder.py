"""A chain from pipes: which archives have a volume, what they must name as base, and what does not fit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qbtools.errors import Damaged, Failed, Refused
from qbtools.formats.chain import Link
from qbtools.formats.header import Base
from qbtools.formats.manifest import FileRecord, file_line, line_digest
from qbtools.runs.chaining import Fifos
from qbtools.runs.hearing import Happened
from qbtools.runs.inorder import InOrder
from qbtools.runs.listpipe import ListPipe


def record(place: int, name: str) -> FileRecord:
    return FileRecord(name, 1, place, f"{place:064x}")


def digest(place: int) -> str:
    """Of the manifest of an archive."""
    return f"{place + 10:064x}"


class Run:
    """Archives that are read side by side, each with the files of its letters. told: what the FIFOs got by now."""

    def __init__(self, folder: Path, *files: str) -> None:
        self.links = [
            Link(f"{place}.qb", f"id-{place}", Base(f"id-{place - 1}", digest(place - 1)) if place else None, "", {})
            for place in range(len(files))
        ]
        self.pipes = [ListPipe() for _ in files[1:]]
        self.order = InOrder(self.links, Fifos(str(folder), self.pipes))
        self.routes = dict(self.order.merged([(one, f"volume:--create:x/{one}") for one in files[-1]], lambda _: None))
        self._folder = folder
        self._fds: dict[str, int] = {}

    def says(self, place: int, event: str, name: str = "", **fields: str) -> None:
        self.order.heard(place, Happened(event, name, **fields))  # type: ignore[arg-type]

    def begins(self, place: int, name: str) -> None:
        self.says(place, "begin", name)

    def reads(self, place: int, name: str) -> None:
        self.says(place, "record", name, line=file_line(record(place, name)))

    def ends(self, place: int, manifest: str | None = None) -> None:
        self.says(place, "ended", digest=manifest or digest(place))

    def told(self, name: str) -> str:
        """What the stages that merge a volume were told since the last time."""
        if name not in self._fds:
            fifo = self.routes[name].split(":")[1]
            self._fds[name] = os.open(self._folder / fifo, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return os.read(self._fds[name], 1 << 16).decode()
        except BlockingIOError:
            return ""

    def close(self) -> None:
        self.order.close()
        for fd in self._fds.values():
            os.close(fd)
        for pipe in self.pipes:
            pipe.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for run in _RUNS:
        run.close()
    _RUNS.clear()


_RUNS: list[Run] = []


def begun(folder: Path, *files: str) -> Run:
    _RUNS.append(Run(folder, *files))
    return _RUNS[-1]


def base(place: int, name: str) -> str:
    return f"id-{place} {line_digest(record(place, name))}\n"


def test_the_routes(folder: Path) -> None:
    run = begun(folder, "a", "ab")
    assert run.routes == {"a": "join:told.0:--create:x/a", "b": "join:told.1:--create:x/b"}
    with os.fdopen(run.pipes[0].reader) as routes:
        assert routes.read().splitlines() == ["?a\tpart:0.0", "?b\tpart:0.1", "end"]
    run.pipes[0].reader = -1


def test_a_volume_that_is_only_checked(folder: Path) -> None:
    """Of one that may be missing, or is not wanted, nothing is merged. Other files come from the last archive alone."""
    pipe = ListPipe()
    order = InOrder(begun(folder, "", "").links, Fifos(str(folder), [pipe]))
    routes = {"?a": "check:", "vm1/*": "tree:", "*": "check:", "c/.": "many::d=e", "qubes.xml": "check:"}
    found = dict(order.merged([*routes.items(), ("b", "check:")], lambda _: None))
    pipe.close()
    assert found == {**routes, "b": "rejoin:told.0"}


def test_all_have_it(folder: Path) -> None:
    run = begun(folder, "a", "a", "a")
    run.begins(0, "a")
    run.begins(2, "a")
    assert run.told("a") == ""
    run.begins(1, "a")
    assert run.told("a") == "0.0 1.0\n"
    run.reads(1, "a")
    assert run.told("a") == ""
    run.reads(0, "a")
    assert run.told("a") == f"none\n{base(0, 'a')}{base(1, 'a')}end\n"
    run.reads(2, "a")
    run.says(2, "done", "a")
    assert run.told("a") == ""
    for place in (2, 0, 1):
        run.ends(place)
    run.order.finish()


def test_one_before_it_lacks_it(folder: Path) -> None:
    """So what comes behind that one must be whole, whatever older ones have."""
    run = begun(folder, "a", "", "a", "a")
    run.begins(3, "a")
    run.begins(0, "a")
    run.begins(2, "a")
    assert run.told("a") == ""
    run.ends(1)
    assert run.told("a") == "0.0 2.0\n"
    run.reads(0, "a")
    run.reads(2, "a")
    assert run.told("a") == f"none\nnone\n{base(2, 'a')}end\n"


def test_a_new_volume_before_another_one(folder: Path) -> None:
    """The older archive waits with b until somebody reads it, so it is not read to its end. It cannot have x."""
    run = begun(folder, "ab", "axb")
    for place in (0, 1):
        run.begins(place, "a")
    run.reads(0, "a")
    run.says(1, "done", "a")
    run.begins(1, "x")
    assert run.told("x") == ""
    run.begins(0, "b")
    assert run.told("x") == "\nnone\nend\n"
    run.says(1, "done", "x")
    run.begins(1, "b")
    assert run.told("b") == "0.2\n"


def test_a_volume_that_comes_too_late(folder: Path) -> None:
    run = begun(folder, "ba", "ab")
    run.begins(0, "b")
    run.begins(1, "a")
    with pytest.raises(Damaged, match=r"^0\.qb has a in another place than 1\.qb: their order differs$"):
        run.begins(0, "a")


def test_a_volume_without_its_end(folder: Path) -> None:
    run = begun(folder, "a", "a")
    run.says(0, "failed", "a")  # its stage has said why
    with pytest.raises(Damaged, match=r"^0\.qb: a: its last chunk is missing$") as caught:
        run.says(0, "failed", "a", reason="its last chunk is missing")
    assert caught.value.hint.startswith("if it failed when it was saved")


def test_another_archive_of_the_same_backup(folder: Path) -> None:
    run = begun(folder, "a", "a", "a")
    run.ends(2)
    with pytest.raises(Damaged, match=r"^1\.qb is not the base of 2\.qb, but another archive of the backup id-1$"):
        run.ends(1, digest(5))


@pytest.mark.parametrize("missing", [0, 1])
def test_an_archive_that_was_not_read_to_its_end(folder: Path, missing: int) -> None:
    run = begun(folder, "a", "a")
    run.ends(1 - missing)
    with pytest.raises(Failed, match=rf"^{missing}\.qb was not read to its end, although all stages succeeded$"):
        run.order.finish()


def test_other_files_in_another_order(folder: Path) -> None:
    """Those that are not restored too, at the end."""
    run = begun(folder, "a", "a")
    for place, names in ((0, "xy"), (1, "yx")):
        for name in names:
            run.reads(place, name)
    run.ends(1)
    with pytest.raises(Damaged, match=r"^1\.qb has y where 0\.qb has x: their order differs$"):
        run.ends(0)


@pytest.mark.parametrize("line", ["", "file 1 2 a", "failed a", "file 1 0 " + "0" * 64 + " a\n"])
def test_a_record_that_is_none(folder: Path, line: str) -> None:
    with pytest.raises(Failed, match="malformed report"):
        begun(folder, "a", "a").says(0, "record", "a", line=line)


def test_without_metadata(folder: Path) -> None:
    order = InOrder(begun(folder, "a", "a").links, Fifos(str(folder), []))
    with pytest.raises(Refused, match=r"^1\.qb has no metadata$"):
        order.merged([("*", "below::file:to")], lambda _: None)


def test_a_run_that_had_enough(folder: Path) -> None:
    InOrder(begun(folder, "a", "a").links, Fifos(str(folder), [])).finish()
