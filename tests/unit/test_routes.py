"""Which files are wanted, by name or by routes; the cost of that, and what a list of routes may contain."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from qbtools.commands.archive import routes, tocommand
from qbtools.commands.archive.events import Events
from qbtools.commands.archive.routes import Named, Routed, Wanted, read_routes
from qbtools.errors import Damaged, QbError, Refused, Truncated
from qbtools.formats import container, header, limits, openarchive, opener
from qbtools.formats.container import Key, Parameters
from qbtools.formats.sealer import Sealer, Settings, Source
from qbtools.progress import Board
from qbtools.streams import Reader, Writer

ID = "20261124T060000-0123456789abcdef"
SECRET = b"selection"
FILES = {"qubes.xml": 100, "vm1/root.img": 2500, "vm1/private.img": 0, "vm2/root.img": 3100, "vm3/notes.txt": 10}
CHUNKS = {"qubes.xml": 1, "vm1/root.img": 3, "vm1/private.img": 1, "vm2/root.img": 4, "vm3/notes.txt": 1}


@pytest.fixture(scope="module")
def archive() -> bytes:
    """The files in FILES, in chunks of 1,000 bytes."""
    out = io.BytesIO()
    sealer = Sealer(Writer(out), SECRET, Settings(ID, 1000, Parameters(10), 0), 1)

    def source(name: str, size: int) -> Source:
        return Source(name, lambda: Reader(io.BytesIO(bytes(size))), lambda: None)

    sources = [source(name, size) for name, size in FILES.items()]
    list(sealer.write_archive(sources, header.new_header(ID, "gzip", 1000, True)))
    return out.getvalue()


class Derivations:
    """Counts the keys that are derived for chunks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._lock = threading.Lock()

        def key(secret: bytes, parameters: Parameters, salt: bytes) -> Key:
            with self._lock:
                self.count += 1
            return Key(secret, parameters, salt)

        monkeypatch.setattr(openarchive, "Key", key)


def feed(archive: bytes, place: Path, wanted: Wanted, first: str | None = None, jobs: int = 2) -> list[str]:
    """The files that a CMD received, each with its target."""
    opened = opener.Opening(Reader(io.BytesIO(archive)), limits.Limits(256 << 20)).archive(
        SECRET, lambda _memory: jobs, lambda _text: None
    )
    cmd = f'echo "$QB_NAME $(wc -c) ${{QB_TARGET-none}}" >>{place}/log'
    log = place / "log"
    log.write_text("")
    cmds = tocommand.Cmds(cmd, first, False, False, lambda _text: None)
    try:
        tocommand.feed_all(opened, cmds, wanted, Board(), Events(None))
    finally:
        came = [line.split(" ", 2) for line in log.read_text().splitlines()]
    assert all(int(size) == FILES[name] for name, size, _target in came)
    return [f"{name} {target}" for name, _size, target in came]


def routed(*lines: str, first: bool = True) -> Routed:
    return Routed(lambda: read_routes(reader("".join(f"{line}\n" for line in (*lines, "end")))), first)


def reader(text: str) -> Reader:
    return Reader(io.BytesIO(text.encode()), "the list")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), ()),
        (("vm1/root.img\tx",), ("vm1/root.img x",)),
        (("vm2/root.img\tx", "vm1/private.img\ty z"), ("vm1/private.img y z", "vm2/root.img x")),
        (("vm1/*\tx",), ("vm1/root.img x", "vm1/private.img x")),
        (("vm1/*\tx", "vm1/private.img\ty"), ("vm1/root.img x", "vm1/private.img y")),
        (("vm3/*\tx", "vm4/*\ty", "vm2/root.img\tz"), ("vm2/root.img z", "vm3/notes.txt x")),
        (("*\tx", "vm1/*\ty"), ("vm1/root.img y", "vm1/private.img y", "vm2/root.img x", "vm3/notes.txt x")),
        (("?vm9/root.img\tx", "?vm3/notes.txt\ty"), ("vm3/notes.txt y",)),
    ],
)
@pytest.mark.parametrize("jobs", [1, 4])
def test_what_has_no_route_costs_no_key_derivation(
    lines: Sequence[str],
    expected: Sequence[str],
    jobs: int,
    archive: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    derivations = Derivations(monkeypatch)
    assert feed(archive, tmp_path, routed(*lines), jobs=jobs) == ["qubes.xml none", *expected]
    count = sum(CHUNKS[line.split()[0].removeprefix("?")] for line in expected) + CHUNKS["qubes.xml"]
    assert derivations.count == count + 1, "and one for the manifest"


def test_below_a_directory_is_right_below_it() -> None:
    found = routed("vm1/*\tx", first=False)
    assert [found.wanted(name) for name in ("vm1/a", "vm1/b/c", "vm1", "vm10/a")] == [True, False, False, False]


def test_the_metadata_goes_to_its_own_cmd_and_the_routes_are_read_after_it(archive: bytes, tmp_path: Path) -> None:
    def read() -> dict[str, str]:
        assert (tmp_path / "first").read_text() == "qubes.xml 100\n"
        return {"vm1/root.img": "x"}

    first = f'echo "$QB_NAME $(wc -c)" >{tmp_path}/first'
    assert feed(archive, tmp_path, Routed(read, True), first) == ["vm1/root.img x"]


def test_without_a_first_cmd_the_metadata_is_a_file_like_any(archive: bytes, tmp_path: Path) -> None:
    assert feed(archive, tmp_path, routed("vm3/*\tx", first=False)) == ["vm3/notes.txt x"]
    assert feed(archive, tmp_path, routed("qubes.xml\tx", first=False)) == ["qubes.xml x"]


def test_an_archive_that_begins_with_another_file() -> None:
    told: list[str] = []
    found = Routed(lambda: {"*": "x"}, True, told.append)
    assert found.wanted("vm1/a") and found.target("vm1/a") == "x"
    assert told == ["vm1/a"]


def test_one_that_the_archive_does_not_have(archive: bytes, tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="vm1/none is not in the archive"):
        feed(archive, tmp_path, routed("vm1/none\tx", "vm2/root.img\ty"))
    assert (tmp_path / "log").read_text() == "qubes.xml 100 none\nvm2/root.img 3100 y\n"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", Truncated, "without its line end"),
        ("vm1/a\tx\n", Truncated, "without its line end"),
        ("vm1/a\tx\nend", Truncated, "without its line end"),
        ("vm1/a\tx", Truncated, "without its line end"),
        ("vm1/a\nend\n", Damaged, "line 1 of the routes: not a name, a tab, a target"),
        ("vm1/a\t\nend\n", Damaged, "line 1 of the routes: not a name, a tab, a target"),
        ("\tx\nend\n", Damaged, "line 1 of the routes: not a relative path"),
        ("vm1/a\tx\n../a\tx\nend\n", Damaged, "line 2 of the routes: not a relative path"),
        ("/*\tx\nend\n", Damaged, "line 1 of the routes: not a relative path"),
        ("*/a\tx\nend\n", Damaged, "line 1 of the routes: not a relative path"),
        ("vm1/a\tx\nvm1/a\ty\nend\n", Damaged, "line 2 of the routes: vm1/a occurs twice"),
        ("?vm1/a\tx\nvm1/a\ty\nend\n", Damaged, "line 2 of the routes: vm1/a occurs twice"),
        ("vm1/a\tx\n?vm1/a\ty\nend\n", Damaged, "line 2 of the routes: vm1/a occurs twice"),
        ("vm1/*\tx\nvm1/*\tx\nend\n", Damaged, r"vm1/\* occurs twice"),
    ],
)
def test_a_list_that_is_not_taken(text: str, error: type[QbError], message: str) -> None:
    with pytest.raises(error, match=message):
        read_routes(reader(text))


def test_a_list_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "MAX_ROUTES", 1 << 10)
    with pytest.raises(Refused, match="more than"):
        read_routes(reader("".join(f"vm1/{number}\tx\n" for number in range(1000))))


def test_names_on_the_command_line(archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    derivations = Derivations(monkeypatch)
    assert feed(archive, tmp_path, Named(["vm2/root.img"])) == ["vm2/root.img none"]
    assert derivations.count == CHUNKS["vm2/root.img"] + 1
    assert feed(archive, tmp_path, Named([])) == [f"{name} none" for name in FILES]


def test_a_waiting_thread_gets_an_answer_at_the_end() -> None:
    chosen = routed("b\tx")
    assert chosen.wanted("qubes.xml")
    answers: list[bool] = []
    waiting = threading.Thread(target=lambda: answers.append(chosen.wanted("b")))
    waiting.start()
    chosen.give_up()
    waiting.join()
    assert answers == [False]


def test_the_header_is_not_counted() -> None:
    """The tests above count container.Key in openarchive.py; the header is opened in another way."""
    assert openarchive.Key is container.Key
