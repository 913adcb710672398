"""Which files are wanted: by name, by a command; what that costs, and what the command may print."""

from __future__ import annotations

import io
import threading
from collections.abc import Collection
from pathlib import Path

import pytest

from qbtools.commands.archive import tocommand, wanted
from qbtools.commands.archive.wanted import Selection
from qbtools.errors import Damaged, Failed, Refused
from qbtools.formats import container, header, openarchive, opener
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


def feed(archive: bytes, place: Path, select: str | None, names: Collection[str] = (), jobs: int = 2) -> list[str]:
    """The files that came to the CMD."""
    opened = opener.open_archive(
        Reader(io.BytesIO(archive)), SECRET, openarchive.Limits(256 << 20), lambda _memory: jobs, lambda _text: None
    )
    cmd = f'echo "$QB_NAME $(wc -c)" >>{place}/log'
    log = place / "log"
    log.write_text("")
    try:
        tocommand.feed_all(opened, cmd, select, names, False, Board())
    finally:
        came = log.read_text().splitlines()
    assert all(line == f"{line.split()[0]} {FILES[line.split()[0]]}" for line in came)
    return [line.split()[0] for line in came]


@pytest.mark.parametrize(
    "chosen",
    [
        [],
        ["vm1/root.img"],
        ["vm2/root.img", "vm1/private.img"],
        ["vm1/*"],
        ["vm3/*", "vm4/*", "vm2/root.img"],
        ["qubes.xml", "vm3/notes.txt"],
        list(FILES),
    ],
)
@pytest.mark.parametrize("jobs", [1, 4])
def test_what_is_not_selected_costs_no_key_derivation(
    chosen: list[str], jobs: int, archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    derivations = Derivations(monkeypatch)
    below = {name[:-1] for name in chosen if name.endswith("*")}
    expected = [name for name in FILES if name in chosen or name == "qubes.xml" or name[: name.find("/") + 1] in below]
    select = "".join(f"echo '{name}';" for name in chosen) or ":"
    assert feed(archive, tmp_path, select, jobs=jobs) == expected
    assert derivations.count == sum(CHUNKS[name] for name in expected) + 1, "and one for the manifest"


def test_it_runs_when_the_first_command_has_ended(archive: bytes, tmp_path: Path) -> None:
    select = f"cat {tmp_path}/log >{tmp_path}/seen; echo $QB_BACKUP_ID $QB_VERSION $QB_COMPRESSION >>{tmp_path}/seen"
    assert feed(archive, tmp_path, select) == ["qubes.xml"]
    assert (tmp_path / "seen").read_text() == f"qubes.xml 100\n{ID} 4 gzip\n"


def test_one_that_the_archive_does_not_have(archive: bytes, tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="vm1/none is not in the archive"):
        feed(archive, tmp_path, "echo vm1/none; echo vm2/root.img")
    assert (tmp_path / "log").read_text() == "qubes.xml 100\nvm2/root.img 3100\n"


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ("echo vm1/root.img; exit 3", "the command that selects ended with status 3"),
        ("echo vm1/root.img; false | true", "stage 1 of 2 ended with status 1"),
        ("kill -KILL $$", "was killed by SIGKILL"),
        ("printf vm1/root.img", "a last line without newline"),
        ("echo", "prints an empty line"),
        ("echo ../x", r"prints \.\./x: "),
        ("echo 'vm1/root.img vm2'", "prints vm1/root.img vm2: "),
        ("echo '/*'", r"prints /\*: "),
        ("echo '*/root.img'", "prints "),
    ],
)
def test_a_command_that_does_not_select(select: str, message: str, archive: bytes, tmp_path: Path) -> None:
    with pytest.raises(Failed, match=message):
        feed(archive, tmp_path, select)
    assert (tmp_path / "log").read_text() == "qubes.xml 100\n"


def test_one_that_prints_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wanted, "MAX_SELECTION", 1 << 16)
    with pytest.raises(Refused, match="prints more than"):
        wanted.by_command("yes vm1/root.img", {})


def test_names_on_the_command_line(archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    derivations = Derivations(monkeypatch)
    assert feed(archive, tmp_path, None, ["vm2/root.img"]) == ["vm2/root.img"]
    assert derivations.count == CHUNKS["vm2/root.img"] + 1
    assert feed(archive, tmp_path, None) == list(FILES)


def test_who_waits_gets_an_answer_when_all_is_over() -> None:
    chosen = Selection((), lambda: ["b"])
    assert chosen.wanted("a")
    answers: list[bool] = []
    waiting = threading.Thread(target=lambda: answers.append(chosen.wanted("b")))
    waiting.start()
    chosen.give_up()
    waiting.join()
    assert answers == [False]


def test_the_header_is_not_counted() -> None:
    """What the tests above count is container.Key as openarchive.py knows it; the header is opened in another way."""
    assert openarchive.Key is container.Key
