"""The verbs of qb-host that qb-backup needs around a run: what is to be saved, and how it went."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from qbtools.commands.cli import Invocation
from qbtools.commands.pipe import volumeoptions
from qbtools.errors import Failed
from qbtools.streams import Reader, Writer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qbtools.hosts.results import Result


def saving(call: Invocation) -> None:
    """Looks at all that is to be saved; writes the metadata of the archive and prints its files, or a table."""
    import io

    from qbtools.domains import names, selection, trim
    from qbtools.errors import Refused
    from qbtools.formats.chunks import METADATA
    from qbtools.hosts import saving, savingtext
    from qbtools.hosts.client import Host

    opts = call.options
    out = call.stdout(binary=False)
    how = volumeoptions.reading(call)
    host = Host(opts["--host"])
    inventory = host.inventory()
    chosen, left_out = selection.for_saving(inventory, opts["DOMAIN"], opts["--include"], opts["--exclude"])
    machines = saving.survey(host, chosen, how)
    if opts["--table"]:
        out.write(savingtext.table(machines, left_out).encode())
        return
    if opts["--json"]:
        _print_json(out, savingtext.as_document(machines, left_out))
        return
    if not machines:
        raise Refused("no domain is to be saved", "name one, or set include_in_backups")
    for one in left_out:
        call.note(f"left out: {one.domain.name} ({one.reason})")
    home = next((name for machine in machines for name, _, _ in machine.files if names.is_home(name)), None)
    contents = {machine.name: machine.contents() for machine in machines}
    document, paths = trim.trimmed(inventory, contents, home)
    with io.FileIO(opts["--into"], "w") as file:
        Writer(file, opts["--into"]).write(document)
    size = len(document)
    first = saving.File(METADATA, "metadata", size, size, names.ADMIN, "-", 0, 0, "-", opts["--into"])
    lines = [file.to_line() for file in (first, *saving.files(machines, paths, host.freezer()))]
    out.write("".join(lines).encode("utf-8", "surrogateescape"))


def saved(call: Invocation) -> None:
    """Prints how saving went, from the lines that saving() printed and the log."""
    from qbtools.hosts import results

    opts = call.options
    status = call.number("--status", 0, 255)
    found = results.of_saving(_open(opts["FILES"]), results.read_log(_open(opts["LOG"])), status == 0)
    _print_json(call.stdout(binary=False), results.as_document(found, status))


def restored(call: Invocation) -> None:
    """Prints how restoring went: lines for qb-host settle, or JSON. Failed, naming them, where domains failed."""
    from qbtools.domains import inventory, qubesxml, safexml
    from qbtools.hosts import results

    opts = call.options
    status = call.number("--status", 0, 255)
    archive = qubesxml.Metadata(safexml.load(_open(opts["--metadata"])))
    # Of an archive of a whole directory the size of each volume is not that of the file.
    sizes = {one.archive_name: one.size for one in inventory.entries(archive) if not one.archive_name.endswith("/.")}
    files = results.read_restored(_open(opts["FILES"]))
    log = results.read_log(_open(opts["LOG"]))
    found = results.of_restore(files, log, sizes, status == 0, opts["--keep-going"])
    others = results.failed_files(files, log)
    out = call.stdout(binary=False)
    if opts["--json"]:
        _print_json(out, results.as_document(found, status, others))
        return
    out.write_lines(results.to_lines(found))
    _complain(found, others)


def _complain(found: Sequence[Result], others: Sequence[str]) -> None:
    failed = [result for result in found if result.problem is not None]
    if failed:
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        raise Failed(f"{len(failed)} of {len(found)} domains failed: {failed[0].domain} ({failed[0].problem}){more}")
    if others:
        more = f", and {len(others) - 1} more" if len(others) > 1 else ""
        raise Failed(f"{others[0]} was not restored{more}")


def _print_json(out: Writer, document: dict[str, object]) -> None:
    out.write((json.dumps(document, indent=2) + "\n").encode())


def _open(path: str) -> Reader:
    import io

    return Reader(io.FileIO(path), path)
