"""Runs a host, the program qb-host-NAME (see qb-host(7)), and reads its output, within bounds."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar

from qbtools.domains import defaults, names, safexml
from qbtools.domains.defaults import Defaults
from qbtools.domains.lines import read_fields
from qbtools.domains.qubesxml import Metadata
from qbtools.environments import cmd_environment
from qbtools.errors import Damaged, Failed, UsageError
from qbtools.formats import chunks
from qbtools.hosts import unsaved
from qbtools.hosts.unsaved import Unsaved
from qbtools.streams import BLOCK, Reader
from qbtools.volumes.marks import Mark

MAX_LINES = 64 << 20
"""The most bytes of lines that a verb may print."""

VERBS = ("inventory", "volumes", "files", "create", "set", "remove", "defaults", "verbs")
"""The verbs that every host must know."""

FREEZE, THAW = "freeze", "thaw"
UNSAVED = "unsaved"

_WORD = re.compile(r"([a-z][a-z0-9]*(?:-[a-z0-9]+)*):(.*)", re.DOTALL)
_FLAGS = {"yes": True, "no": False}
_GRACE = 5.0  # seconds between SIGTERM and SIGKILL for a host that must be stopped
_SAID = 1 << 16  # bytes of its stderr that are read

_Parsed = TypeVar("_Parsed")


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


class Host:
    """A host, which owns domains on this machine. Each method: Failed, with the host and the verb, if the host fails or
    prints invalid output.

    The names of domains must have been checked.
    """

    def __init__(self, word: str, warn: Callable[[str], None] = lambda _: None) -> None:
        """word: `NAME:ARGUMENT` for the program qb-host-NAME, or the path of a directory. warn: gets its warnings.

        The program is searched for in the directory of the running program, then in PATH. UsageError if there is none.
        """
        match = _WORD.fullmatch(word)
        name, argument = match.groups() if match else ("dir", word)
        if not argument or argument.startswith("-"):
            raise UsageError(f"{word} is not a host", "write NAME:ARGUMENT, or a directory; a path may begin with ./")
        if not argument.isprintable():
            raise UsageError(f"the host {word} has characters in its name that are not allowed")
        self.word = word
        self._program = f"qb-host-{name}"
        self._argv = [_found(self._program, name), argument]
        self._warn = warn
        self._verbs: frozenset[str] | None = None

    def inventory(self) -> Metadata:
        """The metadata of all its domains."""
        return self._ask("inventory", parse=lambda reader: Metadata(safexml.load(reader)), limit=safexml.MAX_SIZE)

    def volumes(self, domain: str) -> list[HostVolume]:
        """The volumes that belong to a domain alone."""
        return self._ask("volumes", domain, parse=_volumes)

    def files(self, domain: str) -> list[tuple[str, str]]:
        """Further files of a domain: the name below its path in the archive (or `dom0-home/USER`), and its path."""
        return self._ask("files", domain, parse=_files)

    def create(self, document: bytes) -> list[tuple[str, str]]:
        """Creates a domain with new volumes. Returns the target for qb-volwrite by the name of each volume."""
        return self._ask("create", parse=_targets, document=document)

    def set(self, domain: str, document: bytes) -> None:
        """Sets everything in the document for an unfinished domain, except its volumes."""
        self._ask("set", domain, parse=_nothing, document=document)

    def remove(self, domain: str, mark: str) -> None:
        """Removes an unfinished domain and everything that belongs to it, if it has that mark.

        Does nothing if there is none, or if another run is creating it.
        """
        self._ask("remove", domain, mark, parse=_nothing)

    def defaults(self) -> Defaults:
        """Its defaults."""
        return self._ask("defaults", parse=defaults.read)

    def verbs(self) -> frozenset[str]:
        """The verbs that it knows."""
        if self._verbs is None:
            self._verbs = self._ask("verbs", parse=_verbs)
        return self._verbs

    def unsaved(self) -> list[Unsaved]:
        """The things of all domains that no run saves; empty if the host cannot list them."""
        return self._ask(UNSAVED, parse=unsaved.read) if UNSAVED in self.verbs() else []

    def freezer(self) -> str | None:
        """Shell text to which `freeze DOMAIN` or `thaw DOMAIN` is added to freeze or thaw a machine.

        None if the host cannot do that.
        """
        return shlex.join(self._argv) if {FREEZE, THAW} <= self.verbs() else None

    def leftovers(self, inventory: Metadata | None = None) -> frozenset[str]:
        """The names of its domains that an ended restore has left unfinished. inventory: if it is known already."""
        found = self.inventory() if inventory is None else inventory
        return frozenset(
            domain.name for domain in found.domains if (mark := mark_of(found, domain.name)) and mark.dead()
        )

    def _ask(
        self,
        verb: str,
        *words: str,
        parse: Callable[[Reader], _Parsed],
        document: bytes | None = None,
        limit: int = MAX_LINES,
    ) -> _Parsed:
        data = self._run([verb, *words], document, limit)
        try:
            return parse(Reader(io.BytesIO(data), "its output"))
        except Damaged as error:
            raise Failed(f"{self._named(verb, *words)}: {error.message}", error.hint) from error

    def _named(self, *words: str) -> str:
        return f"{self._program} {self._argv[1]} {' '.join(words)}"

    def _run(self, words: list[str], document: bytes | None, limit: int) -> bytes:
        errors = os.memfd_create("stderr")  # it cannot block if nobody reads it
        given = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) if document is None else _in_memory(document)
        try:
            with _started([*self._argv, *words], given, errors, self._named(*words)) as process:
                data = _read(process, limit)
                if len(data) > limit:
                    raise Failed(f"{self._named(*words)} prints more than {limit} bytes")
                status = process.wait()
            said = os.pread(errors, _SAID, max(os.fstat(errors).st_size - _SAID, 0)).decode("utf-8", "replace")
        finally:
            os.close(errors)
            os.close(given)
        self._judge(words, status, [line.strip() for line in said.splitlines() if line.strip()])
        return data

    def _judge(self, words: list[str], status: int, said: list[str]) -> None:
        hint = said.pop().removeprefix("hint: ") if said and said[-1].startswith("hint: ") else None
        own = re.compile(rf"{re.escape(self._program)}: (?:error|warning): ")
        lines = [own.sub("", line) for line in said]
        if status:
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            raise Failed(f"{self._named(*words)}: {lines[-1] if lines else how}", hint)
        for line in lines:
            self._warn(line)


def mark_of(inventory: Metadata, name: str) -> Mark | None:
    """The owner of an unfinished domain; None for any other domain, or if the owner is not known."""
    domain = inventory.by_name.get(name)
    return None if domain is None else Mark.parse(domain.features.get(names.UNFINISHED, ""))


class _Started:
    """A running program. If the `with` ends with an error it is stopped. Its end is awaited in every case."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self._process

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE)
            self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _started(argv: list[str], stdin: int, stderr: int, named: str) -> _Started:
    environment = cmd_environment(os.environ)
    try:
        return _Started(
            subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, bufsize=0, env=environment)
        )
    except OSError as error:
        raise Failed(f"cannot run {named}: {error.strerror}") from error


def _read(process: subprocess.Popen[bytes], limit: int) -> bytes:
    """Its output, up to a little more than limit."""
    data = bytearray()
    while process.stdout is not None and len(data) <= limit and (more := process.stdout.read(BLOCK)):
        data += more
    return bytes(data)


def _in_memory(document: bytes) -> int:
    """A descriptor at the beginning of a file in memory with the document."""
    fd = os.memfd_create("document")
    view = memoryview(document)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _found(program: str, name: str) -> str:
    beside = os.path.dirname(os.path.realpath(sys.argv[0]))
    found = shutil.which(program, path=beside) or shutil.which(program)
    if found is None:
        raise UsageError(
            f"there is no host of the kind {name}", f"{program} is neither beside this program nor in PATH"
        )
    return found


def _volumes(reader: Reader) -> list[HostVolume]:
    found: dict[str, HostVolume] = {}
    for number, fields in read_fields(reader):
        if len(fields) != 6:
            raise Damaged(f"line {number} has {len(fields)} fields, not 6")
        name, source, size, used = fields[0], fields[1], names.number(fields[2]), names.number(fields[3])
        if problem := names.volume_problem(name):
            raise Damaged(f"line {number}: {name}: {problem}")
        if name in found:
            raise Damaged(f"line {number}: the volume {name} occurs twice")
        if size is None or used is None or not _is_word(source) or not {fields[4], fields[5]} <= _FLAGS.keys():
            raise Damaged(f"line {number} is not a name, a volume, two sizes, and twice yes or no")
        found[name] = HostVolume(name, source, size, used, _FLAGS[fields[4]], _FLAGS[fields[5]])
    return list(found.values())


def _files(reader: Reader) -> list[tuple[str, str]]:
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


def _targets(reader: Reader) -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    for number, fields in read_fields(reader):
        if len(fields) != 2 or names.volume_problem(fields[0]) or not _is_word(fields[1]) or fields[0] in found:
            raise Damaged(f"line {number} is not a volume and its target")
        found[fields[0]] = fields[1]
    return list(found.items())


def _is_word(text: str) -> bool:
    """Whether it can be an argument of qb-volread or qb-volwrite: not an option, and not the sign for none."""
    return bool(text) and not text.startswith("-")


def _verbs(reader: Reader) -> frozenset[str]:
    found = frozenset(fields[0] for _number, fields in read_fields(reader))
    if not found.issuperset(VERBS):
        raise Damaged(f"it does not know {min(set(VERBS) - found)}")
    return found


def _nothing(reader: Reader) -> None:
    if not reader.at_eof():
        raise Damaged("it prints something, but no output is allowed")
