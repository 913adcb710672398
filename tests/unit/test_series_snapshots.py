"""Snapshots that an archive keeps of the machines of a host: which they are, and that none is forgotten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from seriesdir import new

from qbtools.commands.backup.seriessnapshots import Keeper
from qbtools.commands.cli import Invocation
from qbtools.errors import Failed, QbError
from qbtools.runs.creating import Taken
from qbtools.series import keeping
from qbtools.series.directory import Series
from qbtools.series.keeping import Keeping, Snapshot
from qbtools.volumes import locate
from qbtools.volumes.kind import SourceOptions
from qbtools.volumes.marks import Kept, Mark

HOW = SourceOptions()
MARK = Kept("b1")
ROOT, PRIVATE, OTHER = "vm1/root.img", "vm1/private.img", "vm2/root.img"


class Names:
    """The part of a kind that is used. log: what was done, and what the series knew then."""

    def __init__(self, scheme: str, series: Series, log: list[object]) -> None:
        self.scheme, self._series, self._log = scheme, series, log

    def path(self, _name: str) -> None:
        """It is no file."""

    def prepare(self, names: Sequence[str], mark: Mark | Kept, _options: SourceOptions) -> Callable[[], list[str]]:
        assert mark == (MARK if self.scheme == "thin" else Mark.own())

        def take() -> list[str]:
            known = keeping.found(self._series)["b1"]
            self._log.append(("take", self.scheme, known and list(known.words)))
            return [f"{self.scheme}:{name}.snapshot" for name in names]

        return take

    def keepable(self, names: Sequence[str], _options: SourceOptions) -> list[str]:
        return [name for name in names if self.scheme == "thin"]

    def stamps(self, names: Sequence[str]) -> dict[str, str | QbError]:
        return {name: Failed("it is odd") if name.startswith("odd") else f"stamp-{name}" for name in names}

    def release_all(self, specs: Sequence[str]) -> None:
        self._log += [("release", spec) for spec in specs]


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return new(tmp_path / "s")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, series: Series) -> list[object]:
    found: list[object] = []
    kinds = {scheme: Names(scheme, series, found) for scheme in ("thin", "thick")}
    monkeypatch.setattr(locate, "_schemes", lambda: list(kinds))
    monkeypatch.setattr(locate, "_kind", kinds.__getitem__)
    return found


def keeper(series: Series, log: list[object], keep: bool = True) -> Keeper:
    call = SimpleNamespace(options={"--no-keep": not keep}, note=log.append)
    return Keeper(cast(Invocation, call), series, "b1", None)


def test_a_machine_with_volumes_of_two_kinds(series: Series, log: list[object]) -> None:
    """All are taken together. The run releases those that cannot be kept."""
    work = keeper(series, log)
    taken = work.take({PRIVATE: "thick:private", ROOT: "thin:root"}, HOW, None)
    assert taken == Taken(["thick:private.snapshot", "thin:root.snapshot"], ["thick:private.snapshot"])
    assert log == [("take", "thick", ["thin:root"]), ("take", "thin", ["thin:root"])], "known before it exists"
    first = {ROOT: Snapshot("stamp-root.snapshot", "thin:root.snapshot")}
    assert keeping.found(series) == {"b1": Keeping("b1", ["thin:root"], first)}
    assert work.take({OTHER: "thin:other"}, HOW, None) == Taken(["thin:other.snapshot"], [])
    both = {**first, OTHER: Snapshot("stamp-other.snapshot", "thin:other.snapshot")}
    assert keeping.found(series) == {"b1": Keeping("b1", ["thin:root", "thin:other"], both)}


def test_a_snapshot_without_a_stamp_is_only_read(series: Series, log: list[object]) -> None:
    taken = keeper(series, log).take({ROOT: "thin:odd"}, HOW, None)
    assert taken == Taken(["thin:odd.snapshot"], [])
    assert keeping.found(series) == {"b1": Keeping("b1", ["thin:odd"], {})}
    assert log[1:] == ["thin:odd: no snapshot is kept: it is odd"]


def test_nothing_is_kept(series: Series, log: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Names, "prepare", lambda self, names, mark, _how: lambda: [f"{mark}:{name}" for name in names])
    own = f"{Mark.own()}:root"
    assert keeper(series, log, keep=False).take({ROOT: "thin:root"}, HOW, None) == Taken([own], [own])
    assert keeping.found(series) == {}


def test_if_it_cannot_be_written_down(series: Series, log: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody knows of is released; the others are known from before."""
    put = keeping.put

    def fail(series: Series, one: Keeping) -> None:
        if one.snapshots:
            raise Failed("no room")
        put(series, one)

    monkeypatch.setattr(keeping, "put", fail)
    with pytest.raises(Failed, match="no room"):
        keeper(series, log).take({PRIVATE: "thick:private", ROOT: "thin:root"}, HOW, None)
    assert log[2:] == [("release", "thick:private.snapshot")]
    assert keeping.found(series) == {"b1": Keeping("b1", ["thin:root"], {})}
