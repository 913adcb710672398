"""The volumes and files of domains: the lines of the verbs volumes, files and contents of a host."""

from __future__ import annotations

import io

from qbtools.domains import names
from qbtools.domains.lines import read_fields
from qbtools.errors import Damaged
from qbtools.formats import chunks
from qbtools.hosts.unsaved import NONE, escaped, plain
from qbtools.lean import NamedTuple
from qbtools.streams import Reader

_END = "end"
_FLAGS = {"yes": True, "no": False}


class HostVolume(NamedTuple):
    """A volume of a domain. source: a word for qb-volread; size, used: its bytes, and an estimate of its data.

    running: its machine runs. save: it must be saved.
    """

    name: str
    source: str
    size: int
    used: int
    running: bool
    save: bool


class Held(NamedTuple):
    """How a volume is read that is held. word: for qb-volread.

    since: what `qb-volread --since` takes, empty if all of it must be read; reason: then perhaps why.
    """

    word: str
    since: str = ""
    reason: str = ""

    def fields(self, name: str) -> tuple[str, ...]:
        """The fields of its line. name: of the volume."""
        if self.reason and not self.since:
            return name, self.word, NONE, escaped(self.reason)
        return (name, self.word, self.since) if self.since else (name, self.word)


Contents = tuple[list[HostVolume], list[tuple[str, str]]]
"""The volumes of a domain, and its further files."""


def volumes(reader: Reader) -> list[HostVolume]:
    """The volumes of a domain, from lines of six fields. Damaged for any other line."""
    found: dict[str, HostVolume] = {}
    for number, fields in read_fields(reader):
        if len(fields) != 6:
            raise Damaged(f"line {number} has {len(fields)} fields, not 6")
        name, source, size, used = fields[0], fields[1], names.number(fields[2]), names.number(fields[3])
        if problem := names.volume_problem(name):
            raise Damaged(f"line {number}: {name}: {problem}")
        if name in found:
            raise Damaged(f"line {number}: the volume {name} occurs twice")
        if size is None or used is None or not is_word(source) or not {fields[4], fields[5]} <= _FLAGS.keys():
            raise Damaged(f"line {number} is not a name, a volume, two sizes, and twice yes or no")
        found[name] = HostVolume(name, source, size, used, _FLAGS[fields[4]], _FLAGS[fields[5]])
    return list(found.values())


def held(reader: Reader) -> dict[str, Held]:
    """How the volumes of a domain are read, from lines of fields() and the line `end`. Damaged for any other."""
    found: dict[str, Held] = {}
    ended = False
    for number, fields in read_fields(reader):
        if ended:
            raise Damaged(f"line {number} comes after the end")
        ended = fields == [_END]
        if ended:
            continue
        if len(fields) < 2 or names.volume_problem(fields[0]) or not is_word(fields[1]) or fields[0] in found:
            raise Damaged(f"line {number} is not a volume and the word to read it")
        since, reason = [*fields[2:], "", ""][:2]
        if len(fields) > 4 or (since and since != NONE and (reason or not is_word(since))):
            raise Damaged(f"line {number} does not tell since when the volume has changed")
        found[fields[0]] = Held(fields[1], "" if since == NONE else since, plain(reason))
    if not ended:
        raise Damaged("its last line is not end")
    return found


def files(reader: Reader) -> list[tuple[str, str]]:
    """The names and paths of further files, from lines of two fields. Damaged for any other line."""
    found: dict[str, str] = {}
    for number, fields in read_fields(reader):
        if len(fields) != 2 or not fields[1].startswith("/"):
            raise Damaged(f"line {number} is not a name and a path that begins with /")
        if problem := chunks.name_problem(fields[0]):
            raise Damaged(f"line {number}: {fields[0]}: {problem}")
        if "/" in fields[0] and not names.is_home(fields[0]):
            raise Damaged(f"line {number}: {fields[0]}: a file of a domain has no / in its name")
        if fields[0] in found:
            raise Damaged(f"line {number}: the file {fields[0]} occurs twice")
        found[fields[0]] = fields[1]
    return list(found.items())


def contents(reader: Reader) -> dict[str, Contents]:
    """Both for many domains, from their lines with the domain and the verb in front, and `end` after the last of each.

    A domain without its end is not in the result. Damaged for any other line.
    """
    found: dict[str, dict[str, list[str]]] = {}
    ended = set()
    for number, fields in read_fields(reader):
        domain, verb, rest = fields[0], fields[1] if len(fields) > 1 else "", fields[2:]
        texts = found.setdefault(domain, {"volumes": [], "files": []})
        if domain in ended or (verb not in texts if rest else verb != _END):
            raise Damaged(f"line {number} is neither a line of volumes or files for a domain nor the end of a domain")
        if rest:
            texts[verb].append("\t".join(rest) + "\n")
        else:
            ended.add(domain)
    return {
        domain: (volumes(_again(texts["volumes"])), files(_again(texts["files"])))
        for domain, texts in found.items()
        if domain in ended
    }


def _again(lines: list[str]) -> Reader:
    return Reader(io.BytesIO("".join(lines).encode()), "its output")


def is_word(text: str) -> bool:
    """Whether it can be an argument of qb-volread or qb-volwrite: not an option, and not the sign for none."""
    return bool(text) and not text.startswith("-")
