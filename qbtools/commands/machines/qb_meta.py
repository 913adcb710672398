"""qb-meta: the metadata of the domains in an archive."""

from __future__ import annotations

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.streams import Reader, file_reader

DOC = f"""\
Usage:
  qb-meta create [-qv] [LINES]
  qb-meta list [-qv] [--json] [XML]
  qb-meta check [-qv] [--metadata XML] [LINES]

Create and list the metadata of an archive (qubes.xml), and compare files with it.
Input is a file or standard input.

create  prints a qubes.xml. Its input has a line for each volume: DOMAIN,
        VOLUME, SIZE in bytes and, if known, the bytes of it that are data;
        separated by tabs.
list    prints a line for each volume of each saved domain: DOMAIN, CLASS,
        VOLUME, NAME in the archive, SIZE; separated by tabs.
check   compares. Its input has the lines of list, then for each file that was
        found a line "came", NAME, SIZE (- if not known), and last a line "end".

Options:
  --metadata XML        Compare with this file, not with lines of list in the
                        input.
{options.JSON}
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Runs create, list or check. Damaged if the input is malformed or the comparison fails."""
    if call.options["create"]:
        _create(call)
    elif call.options["list"]:
        _list(call)
    else:
        _check(call)


def _create(call: Invocation) -> None:
    from qbtools.domains import compose

    wanted = compose.read_wanted(_input(call, "LINES"), call.warn)
    call.note(f"{len(wanted)} domains, {sum(map(len, wanted.values()))} volumes")
    call.stdout(binary=False).write(compose.compose(wanted))


def _list(call: Invocation) -> None:
    from qbtools.domains import inventory, qubesxml, safexml

    metadata = qubesxml.Metadata(safexml.load(_input(call, "XML")), call.warn)
    if call.options["--json"]:
        import json

        text = json.dumps(inventory.as_document(metadata), indent=2)
        lines = [text + "\n"]
    else:
        lines = [entry.to_line() for entry in inventory.entries(metadata)]
    call.note(f"{sum(1 for _ in metadata.saved())} of {len(metadata.domains)} domains are saved")
    call.stdout(binary=False).write_lines(lines)


def _check(call: Invocation) -> None:
    from qbtools.domains import arrivals, inventory, qubesxml, safexml

    lines = _input(call, "LINES")
    known = None
    if call.options["--metadata"] is not None:
        metadata = qubesxml.Metadata(safexml.load(file_reader(call.options["--metadata"])), call.warn)
        known = inventory.entries(metadata)
    count = arrivals.check(lines, call.warn, known)
    call.note(f"{count} files found, none is missing")


def _input(call: Invocation, argument: str) -> Reader:
    return call.input(call.options[argument])
