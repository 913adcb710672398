"""The stages that open the archives of a chain, and what each is given so that it opens what was read before."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from subprocess import DEVNULL

from qbtools import processes
from qbtools.commands.backup import stagewords
from qbtools.commands.backup.chainlinks import Archive
from qbtools.commands.cli import Invocation
from qbtools.errors import naming
from qbtools.formats import receipt
from qbtools.formats.beginning import header_digest
from qbtools.formats.receipt import Receipt
from qbtools.lean import NamedTuple
from qbtools.runs import chaining, fifos
from qbtools.runs.eventpipe import EventPipe
from qbtools.runs.listpipe import ListPipe
from qbtools.runs.wiring import Wiring

_LIMITS = ("--max-work", "--max-chunk", "--jobs")
_DIGEST = "0" * 64  # no program that opens an archive compares this digest of a receipt


class Given(NamedTuple):
    """The pipes on which a qb-unseal gets the passphrase of its archive, and its receipt."""

    secret: ListPipe
    receipt: ListPipe


def pipes() -> Given:
    """New pipes for one archive."""
    return Given(ListPipe(), ListPipe())


class Handed(NamedTuple):
    """What a qb-unseal is given, so that it opens exactly the archive that was read before.

    source: where bin/qb-backup takes the archive from. words: its options. keep: descriptors that it must inherit,
    besides the pipes.
    """

    source: Sequence[str]
    words: Sequence[str]
    keep: Sequence[int]


def hand(call: Invocation, archive: Archive, given: Given, cleanup: ExitStack) -> Handed:
    """Begins the file of an archive again, and fills its pipes. cleanup: closes what is made for it."""
    given.secret.tell_all(archive.secret + b"\n")
    limits = [f"{option}={call.options[option]}" for option in _LIMITS if option in call.given]
    words = [f"--max-memory={archive.share.limit}", f"--passphrase-fd={given.secret.number}"]
    if archive.link.manifest:
        plain, sealed, _keys = archive.beginning
        found = Receipt(archive.link.backup_id, header_digest(plain, sealed), archive.link.manifest, _DIGEST, 0)
        given.receipt.tell_all(receipt.serialise(found))
        words.append(f"--expect=/dev/fd/{given.receipt.number}")
    if archive.head is None:
        os.lseek(archive.fd, 0, os.SEEK_SET)
        return Handed([str(archive.fd), "-"], [*limits, *words], [archive.fd])
    head = processes.fed(archive.head)
    cleanup.callback(os.close, head)
    return Handed([str(archive.fd), str(head)], [*limits, *words], [archive.fd, head])


class Stages(NamedTuple):
    """Stages that open archives side by side, before they run.

    groups: their words. keep: descriptors that they inherit. lists: their pipes. fifos: through which the archives send
    what they have; folder: of these.
    """

    groups: dict[str, list[str]]
    keep: list[int]
    lists: list[ListPipe]
    events: Sequence[EventPipe]
    folder: str
    fifos: chaining.Fifos

    def wiring(self, call: Invocation, command: str) -> Wiring:
        """The pipe called command, with nothing on its standard input."""
        return _wiring(call, command, self.groups, self.keep, self.folder, self.lists, self.events)


def _wiring(
    call: Invocation,
    command: str,
    groups: Mapping[str, Sequence[str]] | None,
    keep: Sequence[int],
    folder: str | None,
    lists: Sequence[ListPipe],
    events: Sequence[EventPipe],
) -> Wiring:
    script, voice = stagewords.script(), stagewords.voice(call)
    environment = {} if folder is None else {chaining.ENVIRONMENT: folder}
    return Wiring(script, command, groups, voice, DEVNULL, keep, environment, lists=lists, events=events)


def alone(call: Invocation, archive: Archive, cleanup: ExitStack, words: Sequence[str] = ()) -> Wiring:
    """The stages that open one archive, as stagewords.opening()."""
    events, given = EventPipe(), pipes()
    handed = hand(call, archive, given, cleanup)
    own = [*handed.source, *stagewords.shown(call), *handed.words, *words, f"--report=/dev/fd/{events.number}"]
    return _wiring(call, "chain", {"link0": own}, handed.keep, None, given, [events])


def side_by_side(
    call: Invocation,
    archives: Sequence[Archive],
    routes: Sequence[ListPipe],
    events: Sequence[EventPipe],
    cleanup: ExitStack,
) -> Stages:
    """The stages that open all archives of a chain.

    routes: the pipes for the routes of the first of them, or of all. events: for the reports of the last one, or of
    all. cleanup: removes what is made for the stages.
    """
    folder = cleanup.enter_context(fifos.directory())
    given = [pipes() for _ in archives]
    groups, keep = _groups(call, archives, given, routes, events, cleanup)
    lists = [*routes, *(pipe for pair in given for pipe in pair)]
    return Stages(groups, keep, lists, events, folder, chaining.Fifos(folder, routes))


def _groups(
    call: Invocation,
    archives: Sequence[Archive],
    given: Sequence[Given],
    routes: Sequence[ListPipe],
    events: Sequence[EventPipe],
    cleanup: ExitStack,
) -> tuple[dict[str, list[str]], list[int]]:
    """The words of the stages, and the descriptors that they name, besides the pipes."""
    groups: dict[str, list[str]] = {}
    keep: list[int] = []
    count = archives[0].share.turns
    turns = [f"--turns={_turns(count, cleanup)}"] if count else []
    for at, archive in enumerate(archives):
        handed = hand(call, archive, given[at], cleanup)
        own = [*turns, *(stagewords.shown(call) if at == 0 else ["-q"])]  # the first is the longest: it shows progress
        if at < len(routes):
            own.append(f"--routes=/dev/fd/{routes[at].number}")
        if at >= len(archives) - len(events):
            own.append(f"--report=/dev/fd/{events[at - len(archives)].number}")
        groups[f"link{at}"] = [*handed.source, *own, *handed.words]
        keep.extend(handed.keep)
    return groups, keep


def _turns(count: int, cleanup: ExitStack) -> str:
    """A directory of files that qb-unseals lock in turn."""
    folder = cleanup.enter_context(fifos.directory())
    for turn in range(count):
        path = os.path.join(folder, str(turn))
        with naming(f"create {path}"):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return folder


class Begun:
    """Stages that load while the beginnings of their archives are still read. All archives are in regular files."""

    def __init__(self, call: Invocation, files: Sequence[int], cleanup: ExitStack) -> None:
        """Starts the stages. files: the descriptors of the archives, in any order. cleanup: ends the stages."""
        self._folder = cleanup.enter_context(fifos.directory())
        self._given = {fd: pipes() for fd in files}
        self._routes = {fd: ListPipe() for fd in files}
        self._events = [EventPipe()]
        lists = [*self._routes.values(), *(pipe for pair in self._given.values() for pipe in pair)]
        self._wiring = _wiring(call, "chain", None, files, self._folder, lists, self._events)
        cleanup.enter_context(self._wiring)

    def given(self, call: Invocation, archives: Sequence[Archive], cleanup: ExitStack) -> tuple[Wiring, chaining.Fifos]:
        """Tells the stages what to do. archives: a chain of some of the files, as side_by_side() opens it."""
        given = [self._given[one.fd] for one in archives]
        routes = [self._routes[one.fd] for one in archives[:-1]]
        groups, _keep = _groups(call, archives, given, routes, self._events, cleanup)
        self._wiring.give(groups)
        return self._wiring, chaining.Fifos(self._folder, routes)
