"""Runs that read a chain: which archive sends what where, and how they share the memory."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from qbtools.errors import Failed, Refused
from qbtools.formats.chain import Link
from qbtools.formats.header import Base
from qbtools.formats.manifest import FileRecord, line_digest
from qbtools.runs import chaining
from qbtools.runs.chaining import Fifos, Need, Share, Streams
from qbtools.runs.listpipe import ListPipe


def chain_of(*files: str) -> list[Link]:
    """An archive for each word, with a file for each of its letters."""
    links: list[Link] = []
    for number, letters in enumerate(files):
        records = {f"vm1/{one}": FileRecord(f"vm1/{one}", 1, number, f"{number:064x}") for one in letters}
        base = Base(links[-1].backup_id, links[-1].manifest) if links else None
        links.append(Link(f"{number}.qb", f"id-{number}", base, f"{number:064x}", records))
    return links


def base_of(links: list[Link], number: int, name: str) -> str:
    return f"{links[number].backup_id}:{line_digest(links[number].records[name])}"


def bases(links: list[Link], name: str, first: int, last: int) -> str:
    """What the parts from the archives first to last are based on."""
    return ",".join(["none", *(base_of(links, number, name).replace(":", "=") for number in range(first, last))])


def told(pipe: ListPipe) -> list[str]:
    with os.fdopen(pipe.reader) as file:
        return file.read().splitlines()


def test_each_archive_is_told_once_what_it_sends(tmp_path: Path) -> None:
    links, pipes = chain_of("ab", "abc", "abcd"), [ListPipe(), ListPipe()]
    streams, notes = Streams(links, Fifos(str(tmp_path), pipes)), list[str]()
    routes = {"vm1/a": "volume:--create:file:x", "vm1/b": "volume::y", "?vm1/c": "volume::z", "vm1/d": "many::d=e"}
    found = dict(streams.merged(routes.items(), notes.append))
    assert found == {
        "vm1/a": f"merge:0.0 1.0:{bases(links, 'vm1/a', 0, 2)}:--create:file:x",
        "vm1/b": f"merge:0.1 1.1:{bases(links, 'vm1/b', 0, 2)}::y",
        "vm1/c": f"merge:1.2:{bases(links, 'vm1/c', 1, 2)}::z",
        "vm1/d": "many::d=e",
    }
    assert notes == ["vm1/a: from 3 archives", "vm1/b: from 3 archives", "vm1/c: from 2 archives"]
    assert told(pipes[0]) == ["vm1/a\tpart:0.0", "vm1/b\tpart:0.1", "end"]
    assert told(pipes[1]) == ["vm1/a\tpart:1.0", "vm1/b\tpart:1.1", "vm1/c\tpart:1.2", "end"]
    fifos = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert set(fifos) == {"0.0", "0.1", "1.0", "1.1", "1.2"}
    assert all(stat.S_ISFIFO(mode) and not mode & 0o077 for mode in fifos.values())


def test_a_fifo_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    streams = Streams(chain_of("a", "a"), Fifos(f"{tmp_path}/gone", [ListPipe()]))
    with pytest.raises(Failed, match=f"^cannot create {tmp_path}/gone/0.0: No such file or directory$"):
        streams.add("vm1/a")


def test_a_pattern_becomes_a_route_for_each_file(tmp_path: Path) -> None:
    links, pipes = chain_of("a", "ab"), [ListPipe()]
    streams = Streams(links, Fifos(str(tmp_path), pipes))
    found = dict(streams.merged([("*", "below:--create:file:to")], lambda _: None))
    assert found == {
        "*": "below:--create:file:to",
        "vm1/a": f"merge:0.0:{bases(links, 'vm1/a', 0, 1)}:--create:file:to/vm1/a",
        "vm1/b": "merge::none:--create:file:to/vm1/b",
    }
    assert told(pipes[0]) == ["vm1/a\tpart:0.0", "end"]


def test_a_volume_that_is_only_checked(tmp_path: Path) -> None:
    """Of one that may be missing, or is not wanted, nothing is merged. Other files come from the last archive alone."""
    links, pipes = chain_of("abc", "abc"), [ListPipe()]
    routes = {"vm1/a": "check:", "?vm1/b": "check:", "vm1/*": "tree:"}
    found = dict(Streams(links, Fifos(str(tmp_path), pipes)).merged(routes.items(), lambda _: None))
    assert found == {**routes, "vm1/a": f"recheck:0.0:{bases(links, 'vm1/a', 0, 1)}"}
    assert told(pipes[0]) == ["vm1/a\tpart:0.0", "end"]


def test_nothing_wanted_is_told_too(tmp_path: Path) -> None:
    pipes = [ListPipe()]
    assert not Streams(chain_of("a", "a"), Fifos(str(tmp_path), pipes)).merged([], print)
    assert told(pipes[0]) == ["end"]


def test_shares_of_the_memory() -> None:
    """If not all keys can be derived at once, they take turns, at most four at a time."""
    needs = [Need(100, 50), Need(100, 1)]
    assert chaining.shares(251, needs) == [Share(150), Share(101)]
    assert chaining.shares(301, needs) == [Share(175), Share(126)]
    assert chaining.shares(250, needs) == [Share(199, 1), Share(150, 1)]
    assert chaining.shares(151, needs) == [Share(150, 1), Share(101, 1)]
    assert chaining.shares(1031, [Need(100, 1)] * 31) == [Share(120, 4)] * 31
    with pytest.raises(Refused, match="2 archives need 1 MiB of memory together, the limit is 0 MiB") as caught:
        chaining.shares(150, needs)
    assert caught.value.hint == "raise --max-memory if this machine has more"
