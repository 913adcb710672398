"""The dialogue with the stages that open an archive: metadata, routes, files."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from types import TracebackType

import machines
import pytest

from qbtools.domains import inventory, safexml
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Damaged, Failed, QbError, Refused, Told
from qbtools.reports import Failure
from qbtools.runs import checking
from qbtools.runs.filling import Filling, Where, read_map
from qbtools.runs.hearing import Happened
from qbtools.runs.opening import Enough, Routes, labelled, open_all, size_of
from qbtools.streams import Reader

DOCUMENT = machines.document(machines.vm("work", "StandaloneVM"))
METADATA = Happened("done", "qubes.xml", DOCUMENT)


class Stages:
    """Replaces the wiring: sends these reports, and records what it receives."""

    def __init__(self, *events: Happened, statuses: tuple[int, ...] | None = (0,), said: Failure | None = None) -> None:
        self._events = events
        self._statuses = statuses
        self._failures = [said] if said else []
        self.told: list[bytes] = []
        self.stopped = False

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stopped = kind is not None

    def tell_all(self, text: bytes) -> None:
        self.told.append(text)

    def run(self, happened: Callable[[Happened], None]) -> tuple[tuple[int, ...] | None, list[Failure]]:
        for event in self._events:
            happened(event)
        return self._statuses, self._failures


class Log:
    """An opening that records its calls."""

    def __init__(self, routes: Routes = (("a", "check:"), ("*", "volume::x\ty=z"))) -> None:
        self.log: list[tuple[str, ...]] = []
        self._routes = routes

    def metadata(self, metadata: Metadata) -> Routes:
        self.log.append(("metadata", *metadata.by_name))
        return self._routes

    def no_metadata(self, first: str) -> Routes:
        self.log.append(("no metadata", first))
        return self._routes

    def begun(self, name: str) -> None:
        self.log.append(("begun", name))

    def done(self, name: str, printed: str) -> None:
        self.log.append(("done", name, printed))

    def passed(self, name: str) -> None:
        self.log.append(("passed", name))


def test_the_dialogue() -> None:
    stages = Stages(
        Happened("begin", "qubes.xml"),
        METADATA,
        Happened("begin", "a"),
        Happened("done", "a", b"7\xff\n"),
        Happened("passed", "b"),
        Happened("failed", "c"),
    )
    opening = Log()
    open_all(stages, opening)  # type: ignore[arg-type]
    name = inventory.entries(Metadata(safexml.load(Reader(io.BytesIO(DOCUMENT), "x"))))[0].archive_name.encode()
    labelled = b"?" + name + b"\tas:work:private=volume::x\ty=z\n"
    assert stages.told == [b"a\tcheck:\n*\tvolume::x\ty=z\n" + labelled + b"end\n"]
    assert opening.log[0][0] == "metadata"
    assert opening.log[1:] == [("begun", "a"), ("done", "a", "7\udcff\n"), ("passed", "b")]


def test_a_label_goes_with_the_route_that_a_file_has_anyway() -> None:
    entry = inventory.Entry("a", "AppVM", "root", "vm1/root.img", 1)
    whole = inventory.Entry("t", "TemplateVM", "root", "vm-templates/t/.", 1)
    for routes, expected in (
        ({}, {}),
        ({"vm1/root.img": "check:"}, {"vm1/root.img": "as:a:root=check:"}),
        ({"?vm1/root.img": "check:", "*": "x"}, {"?vm1/root.img": "as:a:root=check:", "*": "x"}),
        ({"vm1/*": "into:d", "*": "x"}, {"vm1/*": "into:d", "*": "x", "?vm1/root.img": "as:a:root=into:d"}),
    ):
        assert dict(labelled(routes.items(), [entry])) == expected
    assert dict(labelled([("vm-templates/t/.", "y")], [whole])) == {"vm-templates/t/.": "as:t=y"}


def test_another_file_is_first() -> None:
    opening = Log(())
    stages = Stages(Happened("first", "x"), Happened("begin", "x"), Happened("done", "x"))
    open_all(stages, opening)  # type: ignore[arg-type]
    assert (stages.told, opening.log) == ([b"end\n"], [("no metadata", "x"), ("begun", "x"), ("done", "x", "")])


@pytest.mark.parametrize(
    ("stages", "kind", "message"),
    [
        (Stages(), Damaged, "the archive has no files"),
        (Stages(Happened("begin", "qubes.xml")), Damaged, "the archive has no files"),
        (Stages(Happened("done", "qubes.xml", b"<qubes")), Damaged, "not well-formed"),
        (Stages(METADATA, statuses=None), Failed, "without a report"),
        (Stages(METADATA, statuses=(137,)), Failed, "killed by SIGKILL"),
        (Stages(METADATA, statuses=(4,), said=Failure("qb-unseal", 4)), Told, "^$"),
    ],
)
def test_what_is_no_success(stages: Stages, kind: type[QbError], message: str) -> None:
    with pytest.raises(kind, match=message):
        open_all(stages, Log())  # type: ignore[arg-type]


def test_enough_is_no_failure() -> None:
    class Short(Log):
        def metadata(self, metadata: Metadata) -> Routes:
            raise Enough

    stages = Stages(METADATA, statuses=None)
    open_all(stages, Short())  # type: ignore[arg-type]
    assert (stages.stopped, stages.told) == (True, [])


def test_sizes() -> None:
    assert size_of("a", "7\ta\n") == 7
    assert size_of("a", "7\tb\n") is None
    assert size_of("a/.", "7\ta/x\n8\ta/y\n") is None
    for text in ("a\n", "x\ta\n", "-1\ta\n"):
        with pytest.raises(Damaged, match="its size was not reported"):
            size_of("a", text)


def filling() -> Filling:
    return Filling(Where("./to", None, {}, ()), lambda _: None, lambda _: None)


def test_a_volume_that_is_missing_is_damage() -> None:
    fill = filling()
    open_all(Stages(METADATA), fill)  # type: ignore[arg-type]
    with pytest.raises(Damaged, match="is not in the archive"):
        fill.finish()


def test_nothing_was_restored() -> None:
    fill = filling()
    with pytest.raises(Refused, match="nothing was restored"):
        fill.finish()


@pytest.mark.parametrize("word", ["a:b", "a=b", ":b=c", "a:=c", "a:b=", "a:b=c\td", "a:b=c\nd", "1/:b=c"])
def test_a_map_that_is_none(word: str) -> None:
    with pytest.raises(QbError, match="--map"):
        read_map([word])


def test_a_map() -> None:
    assert read_map(["a:root=/x:y=z"]) == {"a:root": "/x:y=z"}
    with pytest.raises(QbError, match="given twice"):
        read_map(["a:root=x", "a:root=y"])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("5\tt/./root.img.old", "5\tt/./xroot.img", "0\tt/./"), "t/./root.img is missing"),
        (("5\tt/./root.img", "5\tt/./root.img"), "t/./root.img occurs twice"),
        (("0\tt/./root.img\ta symbolic link",), "t/./root.img is a symbolic link, not a regular file"),
        (("5\tt/./root.img", "0\tt/./root.img\ta hard link"), "t/./root.img occurs twice"),
    ],
)
def test_volumes_that_a_directory_does_not_hold(lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(Damaged, match=f"^{re.escape(message)}$"):
        checking.check_directory("t/.", ["root"], "".join(f"{line}\n" for line in lines))


def test_volumes_that_a_directory_holds() -> None:
    printed = "0\tt/./\n1\tt/./private.img\n1\tt/./root.img\n0\tt/./x\ta fifo\n"
    checking.check_directory("t/.", ["root", "private"], printed)
