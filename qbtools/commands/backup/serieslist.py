"""Prints the archives of a series."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

from qbtools.amounts import amount, table
from qbtools.commands.backup import stagewords
from qbtools.commands.cli import Invocation
from qbtools.errors import escape
from qbtools.series.directory import Series
from qbtools.series.ledger import Entry, Ledger

_PENDING, _UNFINISHED = "pending", "unfinished"


def show(call: Invocation, series: Series) -> None:
    """Prints lines, a table on a terminal, or a JSON document."""
    with series.locked() as ledger:
        entries = _entries(ledger, series)
    out = call.stdout(binary=False)
    if call.options["--json"]:
        document = {"base": ledger.base, "full": ledger.full, "domains": ledger.domains}
        stagewords.print_json(call, {**document, "archives": [_document(entry) for entry in entries]})
    elif os.isatty(1):
        rows = [("ID", "state", "base", "time in UTC", "size", "file")]
        rows += [(*row[:4], amount(int(row[4])), escape(row[5])) for row in map(_row, entries)]
        out.write("".join(f"{line}\n" for line in table(rows, ("size",))).encode())
    else:
        out.write(os.fsencode("".join("\t".join(_row(entry)) + "\n" for entry in entries)))


def _entries(ledger: Ledger, series: Series) -> list[Entry]:
    """The archives in the ledger, and then the runs that are not confirmed."""
    waiting = [
        replace(run.entry(), state=_PENDING if run.complete else _UNFINISHED)
        for backup_id, run in series.pending().items()
        if run is not None and backup_id not in ledger.archives
    ]
    return [*ledger.archives.values(), *sorted(waiting, key=lambda entry: entry.number)]


def _row(entry: Entry) -> tuple[str, str, str, str, str, str]:
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry.begun))
    return entry.backup_id, entry.state, entry.base or "-", made, str(entry.size), entry.file or "-"


def _document(entry: Entry) -> dict[str, Any]:
    return {
        "backup_id": entry.backup_id,
        "state": entry.state,
        "base": entry.base,
        "begun": entry.begun,
        "bytes": entry.size,
        "manifest": entry.manifest or None,
        "file": entry.file,
    }
