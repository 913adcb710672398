"""Decides whether a run saves increments, and of which archive. Anything unclear means that it saves everything."""

from __future__ import annotations

import io
import os
from collections.abc import Collection

from qbtools.errors import Damaged, QbError, naming
from qbtools.formats import receipt
from qbtools.formats.blockindex import IndexReader
from qbtools.formats.deltastream import Base
from qbtools.lean import NamedTuple
from qbtools.series.directory import RECEIPT, Series, index_name
from qbtools.series.ledger import Entry, Ledger
from qbtools.streams import Reader


class Wish(NamedTuple):
    """What the user asks for. full_after: the most increments in a chain."""

    full: bool = False
    differential: bool = False
    full_after: int = 30


class Choice(NamedTuple):
    """base: the archive that the increments are based on; None: everything is saved. reason: in a few words.

    surprising: the user may not expect that everything is saved. folder: the directory of the base. indexed: the names
    of the volumes that the base has.
    """

    base: Entry | None
    reason: str
    surprising: bool = False
    folder: str = ""
    indexed: frozenset[str] = frozenset()


def choose(series: Series, ledger: Ledger, wish: Wish, names: Collection[str]) -> Choice:
    """The choice for an archive with these volumes (names in the archive). Only to be called in Series.locked()."""
    if wish.full:
        return Choice(None, "--full was given")
    if series.copied:
        return Choice(None, f"{series.path} was copied or restored from a backup", True)
    backup_id = ledger.full if wish.differential else ledger.base
    if backup_id is None:
        waiting = any(run and run.complete for run in series.pending().values())
        return Choice(None, "no archive of the series is confirmed", waiting or bool(ledger.archives))
    chain = ledger.chain(backup_id)
    links = len(chain)  # with the new one
    if links > wish.full_after:
        return Choice(None, f"the chain has {links - 1} increment{'s' * (links != 2)}")
    try:
        indexed = _check(series, chain[0], names)
    except QbError as error:
        return Choice(None, error.message, True)
    return Choice(chain[0], f"increment {links} of the chain", False, series.folder(backup_id), indexed)


def _check(series: Series, entry: Entry, names: Collection[str]) -> frozenset[str]:
    """Checks that everything that an increment needs is there. Returns the names of the volumes that it has."""
    folder = series.folder(entry.backup_id)
    run = series.run_of(entry.backup_id)
    if run.entry() != entry:
        raise Damaged(f"{folder} does not belong to the archive {entry.backup_id}")
    path = os.path.join(folder, RECEIPT)
    with naming(f"read {path}"), io.FileIO(path) as file:
        found = receipt.parse(Reader(file, path).read_up_to(receipt.MAX_SIZE + 1), path)
    if (found.backup_id, found.manifest) != (entry.backup_id, entry.manifest):
        raise Damaged(f"{path} is not that of the archive {entry.backup_id}")
    indexed = frozenset(run.volumes).intersection(names)
    for name in sorted(indexed):
        path = os.path.join(folder, index_name(name))
        with naming(f"read {path}"), io.FileIO(path) as file:
            index = IndexReader(Reader(file, path))
            if (index.head.name, index.head.base) != (name, Base(entry.backup_id, run.volumes[name])):
                raise Damaged(f"the index {path} is not that of {name} in the archive {entry.backup_id}")
            index.check()
    return indexed
