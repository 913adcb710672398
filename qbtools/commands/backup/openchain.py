"""qb-backup list, verify and restore with several archives: a full backup and increments of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import pairwise

from qbtools.commands.archive import routes as wanted_routes
from qbtools.commands.archive import tocommand
from qbtools.commands.backup import chainlinks, chainpipes, chainstages
from qbtools.commands.backup import open as opened
from qbtools.commands.backup.chainlinks import Archive
from qbtools.commands.backup.chainstages import Begun
from qbtools.commands.backup.optionrules import command_of
from qbtools.commands.cli import Invocation
from qbtools.formats import chain
from qbtools.formats.chain import Link
from qbtools.formats.manifest import line_digest
from qbtools.runs import chaining, checking, filling, inorder, opening
from qbtools.runs.eventpipe import EventPipe
from qbtools.runs.listpipe import ListPipe
from qbtools.runs.opening import Opening, Routes
from qbtools.runs.wiring import Wiring


def run(call: Invocation, files: Sequence[str]) -> None:
    """Lists, verifies or restores the last state of a chain, or that of --at. Raises if any part of it failed."""
    command = command_of(call)
    if call.options["--host"] is not None:
        from qbtools.commands.backup import openhost  # it takes as long to load as everything else

        openhost.run(call, partial(_restore_to_host, call, files))
        return
    with ExitStack() as cleanup:
        archives, begun = _read(call, files, cleanup, early=command == "restore")
        call.options["FILE"] = archives[-1].path
        if command == "list":
            _list(call, archives)
        elif command == "verify":
            _verify(call, archives)
        else:
            fill = filling.Filling(opened.where(call, chainlinks.kept(archives)), call.note, call.warn)
            restore(call, archives, fill, begun=begun)
            fill.finish()


def _read(
    call: Invocation, files: Sequence[str], cleanup: ExitStack, early: bool = False
) -> tuple[list[Archive], Begun | None]:
    """The chain, in its order. If one of the files is a pipe, that is their order. cleanup: closes the files.

    early: to restore them, start the stages before, if that is possible: they take as long to load as this to read.
    """
    typed, enough = chainlinks.typed_passphrase(call), chainlinks.allow_descriptors(files)
    if chainpipes.among(files):
        return chainpipes.read(call, files, typed, cleanup), None
    fds = chainlinks.opened(files, cleanup)
    begun = Begun(call, fds, cleanup) if early and enough else None
    return chainlinks.read(call, files, fds, typed), begun


def _restore_to_host(call: Invocation, files: Sequence[str], made: Opening, words: Sequence[str]) -> None:
    with ExitStack() as cleanup:
        archives, _none = _read(call, files, cleanup)
        restore(call, archives, made, words, partly=True)


def _list(call: Invocation, archives: Sequence[Archive]) -> None:
    """Lists the last archive. Archives of which nothing is known yet are all read to their end."""
    links: list[Link] = []
    for archive in archives[-1:] if archives[-1].known else archives:
        last = archive is archives[-1]
        listing, reading = opened.Listed(call), inorder.Reading(archive.link)
        handler = checking.Listing(listing.show if last else _ignore)
        with ExitStack() as cleanup:
            stages, warn = chainstages.alone(call, archive, cleanup), call.warn if last else _ignore
            opening.open_all(stages, handler, warn, listing.opened if last else _ignore, heard=reading.heard)
        links.append(reading.whole())
        _compare(archives, links)


def _verify(call: Invocation, archives: Sequence[Archive]) -> None:
    """Verifies each archive of the chain, and that each increment belongs to the volume in the archive before it."""
    links: list[Link] = []
    lines: dict[str, str] = {}
    for archive in archives:
        call.options["FILE"] = archive.path
        verifying, reading = checking.Verifying(call.warn, lines), inorder.Reading(archive.link)
        with ExitStack() as cleanup:
            opened.verify(call, chainstages.alone(call, archive, cleanup, ["--verify"]), verifying, reading.heard)
        links.append(reading.whole())
        _compare(archives, links)
        lines = {name: line_digest(record) for name, record in links[-1].records.items()}


def _compare(archives: Sequence[Archive], links: Sequence[Link]) -> None:
    """Damaged if the links, of archives that were read to their end, and the next archive do not follow each other.
    Nothing is compared if that was done before."""
    if not archives[-1].known:
        following = [archive.link for archive in archives[len(links) :]]
        for base, one in pairwise([*links, *following[:1]]):
            chain.check_follows(one, base)


def _ignore(_: object) -> None:
    """Shows nothing of an archive that is only read."""


def restore(
    call: Invocation,
    archives: Sequence[Archive],
    fill: Opening,
    words: Sequence[str] = (),
    partly: bool = False,
    begun: Begun | None = None,
) -> None:
    """Opens the last archive as opening.open_all() does, with each volume merged from all of them.

    words: more options for the qb-unseal of the last archive. partly: a file that failed when it was saved does not
    keep the others from being restored. begun: the stages, if they run already; then there are no words.
    """
    with ExitStack() as cleanup:
        if not archives[-1].known:
            _restore_in_order(call, archives, fill, words, cleanup)
            return
        last = archives[-1]
        if begun is None:
            routes, events = [ListPipe() for _ in archives[:-1]], [EventPipe()]
            stages, fifos = _side_by_side(call, archives, words, routes, events, cleanup)
        else:
            stages, fifos = begun.given(call, archives, cleanup)
        streams = chaining.Streams([archive.link for archive in archives], fifos)

        def routed(routes: Routes) -> Routes:
            if not partly:
                _check_there(last, dict(routes))
            return streams.merged(routes, call.note)

        opening.open_all(stages, fill, call.warn, routed=routed)


def _restore_in_order(
    call: Invocation, archives: Sequence[Archive], fill: Opening, words: Sequence[str], cleanup: ExitStack
) -> None:
    """The same where nothing is known of the archives before they come."""
    pipes, events = [ListPipe() for _ in archives[:-1]], [EventPipe() for _ in archives]
    stages, fifos = _side_by_side(call, archives, words, pipes, events, cleanup)
    order = inorder.InOrder([archive.link for archive in archives], fifos)
    cleanup.callback(order.close)
    for place, pipe in enumerate(events[:-1]):
        pipe.handler = partial(order.heard, place)
    heard = partial(order.heard, len(archives) - 1)
    opening.open_all(stages, fill, call.warn, routed=lambda routes: order.merged(routes, call.note), heard=heard)
    order.finish()


def _side_by_side(
    call: Invocation,
    archives: Sequence[Archive],
    words: Sequence[str],
    pipes: Sequence[ListPipe],
    events: Sequence[EventPipe],
    cleanup: ExitStack,
) -> tuple[Wiring, chaining.Fifos]:
    """The stages that restore from all archives, as chainstages.side_by_side()."""
    found = chainstages.side_by_side(call, archives, pipes, events, cleanup)
    found.groups[f"link{len(archives) - 1}"].extend(words)
    return found.wiring(call, "chain"), found.fifos


def _check_there(last: Archive, targets: Mapping[str, str]) -> None:
    """Damaged if a file that is wanted failed when it was saved, or is missing."""
    wanted = [name for name in targets if not name.startswith(("*", "?")) and not name.endswith("/*")]
    if failed := [name for name in last.failed if name in wanted or "*" in targets]:
        raise tocommand.incomplete(failed)
    for name in wanted:
        if name not in last.link.records:
            raise wanted_routes.missing(name)
