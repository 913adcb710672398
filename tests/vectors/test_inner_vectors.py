"""Runs the vectors of inner archives and of volume streams through the programs."""

from __future__ import annotations

import hashlib
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import Server
from vectors import vectorfile

HERE = Path(__file__).parent
INNER = vectorfile.read_all(HERE / "inner")
STREAMS = vectorfile.read_all(HERE / "volumestream")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.close()


def _good(data: dict[str, tuple[dict[str, str], bytes]]) -> list[str]:
    return [name for name, (said, _) in data.items() if said["status"] == "0"]


def _bad(data: dict[str, tuple[dict[str, str], bytes]]) -> list[str]:
    return [name for name, (said, _) in data.items() if said["status"] != "0"]


def _output(server: Server, *argv: str, data: bytes) -> bytes:
    ended = server.run(*argv, data=data)
    assert (ended.status, ended.stderr) == (0, "")
    return ended.stdout


@pytest.mark.parametrize("name", _good(INNER))
def test_good_archive(name: str, server: Server) -> None:
    said, data = INNER[name]
    arguments = [said["name"]] if "name" in said else []
    assert {"volume", "size", "list"} & set(said)
    if "volume" in said:
        plain = _output(server, "qb-tarextract", "--raw", *arguments, data=data)
        assert hashlib.sha256(plain).hexdigest() == said["volume"]
        stream = _output(server, "qb-tarextract", *arguments, data=data)
        archive = _output(server, "qb-tarwrite", "again.img", data=stream)
        assert _output(server, "qb-tarextract", "--raw", data=archive) == plain
    if "size" in said:
        assert _output(server, "qb-tarextract", "--size", *arguments, data=data) == said["size"].encode() + b"\n"
    if "list" in said:
        listed = said["list"].replace("|", "\n").replace(">", "\t").encode()
        assert _output(server, "qb-tarextract", "--list", *arguments, data=data) == listed


@pytest.mark.parametrize("name", _bad(INNER))
def test_bad_archive(name: str, server: Server) -> None:
    said, data = INNER[name]
    arguments = [said["name"]] if "name" in said else []
    argv, raw = ["qb-tarextract", *arguments], ["qb-tarextract", "--raw", *arguments]
    piped = server.run_each([argv, raw], data=data, piped=True)
    assert len(piped) == 2
    for ended in [*piped, server.run(*raw, data=data)]:
        assert ended.status == int(said["status"])
        assert ended.stderr.splitlines()[0] == f"qb-tarextract: error: {said['message']}"
        assert not re.search(rb"end [0-9]+\n\Z", ended.stdout)


@pytest.mark.parametrize("name", [name for name in _bad(INNER) if not name.startswith(("type-", "two-", "slash"))])
def test_bad_archive_is_not_listed(name: str, server: Server) -> None:
    said, data = INNER[name]
    arguments = [said["name"]] if "name" in said else []
    ended = server.run("qb-tarextract", "--list", *arguments, data=data, piped=True)
    assert (ended.status, ended.stdout) == (int(said["status"]), b"")
    assert ended.stderr.splitlines()[0] == f"qb-tarextract: error: {said['message']}"


@pytest.mark.parametrize("name", _good(STREAMS))
def test_good_stream(name: str, server: Server) -> None:
    said, data = STREAMS[name]
    archive = _output(server, "qb-tarwrite", "vm1/private.img", data=data)
    if "volume" in said:
        assert hashlib.sha256(_output(server, "qb-tarextract", "--raw", data=archive)).hexdigest() == said["volume"]
    else:
        assert _output(server, "qb-tarextract", "--size", data=archive) == said["size"].encode() + b"\n"
    if name != "touching":
        assert _output(server, "qb-tarextract", data=archive) == data


@pytest.mark.parametrize("name", _bad(STREAMS))
def test_bad_stream(name: str, server: Server) -> None:
    said, data = STREAMS[name]
    ended = server.run("qb-tarwrite", "vm1/private.img", data=data, piped=True)
    assert ended.status == int(said["status"])
    assert ended.stderr.splitlines()[0] == f"qb-tarwrite: error: {said['message']}"
    # Whatever came out, it is no archive that anybody of ours takes for whole.
    assert server.run("qb-tarextract", "--list", data=ended.stdout, piped=True).status == 4


@pytest.mark.parametrize(("folder", "there"), [("inner", INNER), ("volumestream", STREAMS)])
def test_they_are_what_the_generator_writes(folder: str, there: dict[str, vectorfile.Vector]) -> None:
    assert runpy.run_path(str(HERE / folder / "generate.py"))["vectors"]() == there
