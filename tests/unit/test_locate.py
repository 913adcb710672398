"""Which volume a word names; and a new kind of volume needs only one more module."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import copy_of, run

from qbtools.errors import Failed, UsageError
from qbtools.volumes import locate
from qbtools.volumes.kind import Kind, TargetOptions


class Names:
    """The part of a kind that is used before a volume is opened."""

    def __init__(self, scheme: str, has: tuple[str, ...] = (), makes: tuple[str, ...] = (), narrows: str = "") -> None:
        self.scheme, self.has, self.makes, self.narrows = scheme, has, makes, narrows or None

    def exists(self, word: str) -> bool:
        return word in self.has or word == os.environ.get("EVERYBODYS")

    def could_be_made(self, word: str) -> bool:
        return word in self.makes

    def open_target(self, name: str, _options: Any) -> str:
        return f"{self.scheme} {name}"


@pytest.fixture(autouse=True)
def kinds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The kinds of this test, in an empty directory."""
    kinds = [
        Names("thing", ("a/b", "disk", "part"), ("new/both", "new/thing")),
        Names("special", ("disk",), narrows="thing"),
        Names("pool", ("a/b", "p/q"), ("new/both", "new/pool")),
    ]
    monkeypatch.setattr(locate, "_schemes", lambda: [kind.scheme for kind in kinds])
    monkeypatch.setattr(locate, "_kind", lambda scheme: next(kind for kind in kinds if kind.scheme == scheme))
    monkeypatch.chdir(tmp_path)
    yield


def found(word: str) -> tuple[str, str]:
    kind, name = locate.existing(word)
    return kind.scheme, name


def made(word: str) -> str:
    return str(locate.open_target(word, TargetOptions()))


def test_what_one_kind_has_is_its() -> None:
    assert found("p/q") == ("pool", "p/q")
    assert found("part") == ("thing", "part")


def test_the_special_case_wins() -> None:
    assert found("disk") == ("special", "disk")
    assert made("disk") == "special disk"


def test_a_word_that_could_be_two_volumes_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="^a/b could mean more than one volume$") as raised:
        found("a/b")
    assert raised.value.hint == "write thing:a/b or pool:a/b"
    with pytest.raises(UsageError, match="^new/both could mean more than one volume$"):
        made("new/both")
    assert found("pool:a/b") == ("pool", "a/b")
    assert made("thing:new/both") == "thing new/both"


def test_a_word_that_could_be_none_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="^x/y is neither an existing path nor another volume$") as raised:
        found("x/y")
    assert raised.value.hint == "the kinds are thing:, special:, pool:"
    line = "x/y does not exist, and no kind of volume can be created with this name"
    with pytest.raises(UsageError, match=f"^{line}$") as raised:
        made("x/y")
    assert raised.value.hint == "create the directory x first if it is a file; the kinds are thing:, special:, pool:"


def test_a_word_that_can_only_be_a_path_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    for word in "gone", "./gone", f"{tmp_path}/gone", "../gone/gone":
        with pytest.raises(Failed, match="^cannot open .*gone: No such file or directory$"):
            found(word)
    with pytest.raises(Failed, match="^cannot create ./gone/gone: No such file or directory$"):
        made("./gone/gone")
    with pytest.raises(UsageError, match="is a directory, not a file or a block device"):
        found(str(tmp_path))
    with pytest.raises(UsageError, match="is a directory"):
        made("new/")


def test_what_can_be_made_by_one_kind_is_made() -> None:
    assert made("new/thing") == "thing new/thing"
    assert made("new/pool") == "pool new/pool"


@pytest.mark.parametrize("word", ["nbd:disk", "NBD:x", "a+b.c-d:x"])
def test_an_unknown_scheme_lists_the_known_ones(word: str) -> None:
    scheme = word.partition(":")[0].replace("+", r"\+")
    for asked in found, made:
        with pytest.raises(UsageError, match=f": unknown kind of volume: {scheme}$") as raised:
            asked(word)
        assert raised.value.hint == "the kinds are thing:, special:, pool:; a path may begin with ./"


def test_what_only_looks_like_a_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nbd:disk").touch()
    monkeypatch.setenv("EVERYBODYS", "nbd:disk")
    with pytest.raises(UsageError, match="more than one"):
        found("nbd:disk")
    for word in "./nbd:disk/gone", "2:x", ":x", "dir/nbd:x":
        with pytest.raises((UsageError, Failed), match="cannot open|neither an existing path"):
            found(word)


@pytest.mark.parametrize(
    ("word", "message"), [("", "no name"), ("-", "not a stream"), ("pool:", "has no name of a volume")]
)
def test_words_that_are_none(word: str, message: str) -> None:
    for asked in found, made:
        with pytest.raises(UsageError, match=message):
            asked(word)


FAKE = '''
"""Volumes that stand in a file of another name: to see that nothing else has to know of a kind."""
import os
from qbtools.volumes.files.source import open_plain
from qbtools.volumes.files.target import FileTarget
from qbtools.volumes.kind import Kind, TargetOptions

class Fake(Kind):
    scheme = "fake"
    def exists(self, word): return word.startswith("the/fake") and os.path.exists(self.path(word))
    def could_be_made(self, word): return word.startswith("the/fake")
    def path(self, name): return name.rpartition("/")[2] + ".fake"
    def sizes(self, name, options): return 1, 2
    def open_source(self, name, options): return open_plain(self.path(name))
    def open_target(self, name, options): return FileTarget(self.path(name), options)
    def take(self, names, mark, options): return ["fake:" + self.path(name) for name in names]
    def marked(self, places):
        from qbtools.volumes.marks import Mark
        yield "fake:marked", Mark.own()
    def release(self, spec): print("released", spec, flush=True)

KIND = Fake()
'''


def test_a_further_kind_is_one_more_module(tmp_path: Path) -> None:
    copy_of(tmp_path, "bin", "qbtools")
    (tmp_path / "qbtools/volumes/kinds/fake.py").write_text(FAKE)

    def sh(text: str) -> tuple[int, str, str]:
        done = run("bash", "-o", "pipefail", "-c", f"cd '{tmp_path}'; PATH='{tmp_path}/bin':$PATH; {text}")
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    assert sh("echo hello | qb-volwrite --raw fake:a && cat a.fake") == (0, "hello\n", "")
    assert sh("qb-volread the/fake/a | qb-volwrite --create the/fake/b && qb-volread --raw fake:b") == (
        0,
        "hello\n",
        "",
    )
    assert sh("qb-volread --size fake:a") == (0, "1\t2\n", "")
    assert sh("qb-snapshot take fake:a the/fake/b") == (0, "fake:a.fake\nfake:b.fake\n", "")
    assert "fake:marked" in sh("qb-snapshot list")[1]
    assert sh("qb-snapshot release fake:a") == (0, "released fake:a\n", "")
    status, _, stderr = sh("qb-volread no:x")
    assert status == 2 and "the kinds are block:, fake:, file:, lvm:" in stderr


def test_every_kind_of_ours_is_found_and_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    known = locate.known()
    assert {"block", "file", "lvm"} <= set(known)
    assert all(isinstance(kind, Kind) and kind.scheme == scheme for scheme, kind in known.items())
