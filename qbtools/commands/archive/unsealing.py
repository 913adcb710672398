"""The actions of qb-unseal: --structure, and those after the header of an archive has been authenticated."""

from __future__ import annotations

import json
from importlib import import_module

from qbtools import processes, progressline
from qbtools.commands.archive import receipts, routes, tocommand
from qbtools.commands.archive.events import Events
from qbtools.commands.cli import Invocation
from qbtools.errors import UsageError
from qbtools.formats import kdf
from qbtools.lean import TYPE_CHECKING
from qbtools.streams import Writer, file_reader

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from qbtools.formats.openarchive import Archive
    from qbtools.progress import Board


def check_options(options: Mapping[str, Any]) -> None:
    """UsageError for options that do not fit together, and for an empty CMD."""
    if options["--archive"] is not None:
        raise UsageError("--archive must be the first word")
    if options["--expect"] is not None and options["--stop"]:
        raise UsageError("--expect does not go with --stop: the end of the archive would not be read")
    for option in ("--to-command", "--first"):
        if options[option] is not None:
            processes.check_cmd(options[option], option)


def write_file(archive: Archive, name: str, stop: bool, out: Writer) -> None:
    """Writes the plaintext of one file. stop: return when it is complete. Damaged if the file is missing."""
    found = False
    # Without a chunk size in the header it is not known yet that the file is complete.
    stop = stop and archive.header.chunk_size is not None
    for event in archive.events(lambda candidate: candidate == name):
        found = found or event.name == name
        if event.data is not None:
            out.write(event.data)
        elif stop and event.name == name and event.ends:
            return
    if name in archive.failed:
        raise tocommand.incomplete([name])
    if not found:
        raise routes.missing(name)


def read_all(archive: Archive, verify: bool) -> None:
    """Reads to the end. verify: also opens every chunk, and raises Damaged if files failed when they were saved."""
    for _event in archive.events(lambda _name: verify):
        pass
    if verify and archive.failed:
        raise tocommand.incomplete(archive.failed)


def feed(call: Invocation, archive: Archive, board: Board, events: Events) -> None:
    """Feeds the files to CMDs, according to --to-command and its options."""
    opts = call.options
    version = archive.header.version

    def read() -> dict[str, str]:
        with progressline.held():  # the program that writes them may ask the user
            return routes.read_routes(file_reader(opts["--routes"], "the list of routes"))

    def no_metadata(name: str) -> None:
        events.tell("first", name, version=version)

    wanted: routes.Wanted = routes.Named(opts["NAME"])
    if opts["--routes"] is not None:
        wanted = routes.Routed(read, opts["--first"] is not None, no_metadata)
    cmds = tocommand.Cmds(opts["--to-command"], opts["--first"], opts["--verify"], opts["--keep-going"], call.warn)
    tocommand.feed_all(archive, cmds, wanted, board, events)


def listing(archive: Archive, as_json: bool) -> str:
    """The files with their chunks and bytes, as lines or as JSON. Called when the archive has been read."""
    if not as_json:
        return "".join(f"{file.name}\t{file.chunks}\t{file.size}\n" for file in archive.records)
    document = {
        "backup_id": archive.header.backup_id or None,
        "version": archive.header.version,
        "compression": archive.header.method,
        "manifest": archive.header.manifest,
        "base": None if archive.header.base is None else archive.header.base._asdict(),
        "files": [{"name": file.name, "chunks": file.chunks, "bytes": file.size} for file in archive.records],
        "failed": archive.failed,
    }
    return json.dumps(document, indent=2) + "\n"


_WITH_STRUCTURE = {"--structure", "--expect", "--receipt", "--max-chunk", "--quiet", "--verbose"}


def structure(call: Invocation) -> None:
    """Checks the archive on standard input without its passphrase, and writes its receipt if that is wanted.

    UsageError for options that need the passphrase. Errors as structure.check_rest() and receipts.Receipting.
    """
    from qbtools.formats import header
    from qbtools.formats import structure as checked
    from qbtools.formats.beginning import header_bound, read_beginning
    from qbtools.formats.outertar import MemberReader

    for option in sorted(call.given - _WITH_STRUCTURE):
        raise UsageError(f"{option} does not go with --structure, which opens nothing")
    largest, expected = call.size("--max-chunk", 1, 1 << 34), receipts.expected(call)
    with receipts.Receipting(call, complete=True) as receipt:
        reader = call.stdin()
        reader.name = "the archive"
        members = MemberReader(reader, header_bound)
        beginning = read_beginning(members, largest)
        for text in checked.check_rest(members, beginning, largest, call.warn, expected, receipt.digest):
            call.warn(text)
        receipt.finish(header.parse(beginning.untrusted_plain).backup_id)


_LATER = (
    *("progress", "formats.firstchunk", "formats.openarchive", "keys.unlocking", "commands.taken"),
    *("commands.archive.capacity", "commands.archive.openoptions", "commands.archive.turns"),
)


def load() -> None:
    """Loads what qb-unseal otherwise loads when it needs it, to run CMDs for an archive."""
    for name in _LATER:
        import_module(f"qbtools.{name}")
    kdf.load()
