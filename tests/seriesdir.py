"""Series for tests: runs that are complete, with an index for each of their volumes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

from qbtools.formats import blockindex, receipt
from qbtools.formats.blockindex import IndexWriter
from qbtools.formats.deltastream import Base
from qbtools.formats.receipt import Receipt
from qbtools.series.choosing import Wish, choose
from qbtools.series.directory import RECEIPT, Series, index_name
from qbtools.series.ledger import Entry, Ledger
from qbtools.series.runtext import Run
from qbtools.streams import Writer

NAMES = ("vm1/private.img", "vm1/root.img")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def index(name: str, backup_id: str, blocks: int = 3) -> bytes:
    """The index of a volume whose blocks are not zeros."""
    file = io.BytesIO()
    line = Base(backup_id, digest(f"{backup_id} {name}"))
    writer = IndexWriter(Writer(file), blockindex.Head(bytes(32), blocks << 16, 1 << 16, line, name))
    writer.add(b"d" * blockindex.DIGEST * blocks)
    writer.end()
    return file.getvalue()


def begun(ledger: Ledger, backup_id: str, base: str | None = None, at: int = 0) -> Run:
    """A run that takes the next number."""
    ledger.next += 1
    return Run(ledger.next - 1, backup_id, base, at)


def completed(run: Run, names: Iterable[str] = NAMES) -> Run:
    volumes = {name: digest(f"{run.backup_id} {name}") for name in names}
    return Run(run.number, run.backup_id, run.base, run.begun, None, 1000, digest(run.backup_id), volumes)


def complete(series: Series, run: Run, names: Iterable[str] = NAMES) -> None:
    """Writes all files of a run that has ended well, its text last."""
    series.put_run(run)
    for name in names:
        series.put(run.backup_id, index_name(name), index(name, run.backup_id))
    text = receipt.serialise(Receipt(run.backup_id, "0" * 64, digest(run.backup_id), "0" * 64, 1000))
    series.put(run.backup_id, RECEIPT, text)
    series.put_run(completed(run, names))


def save(series: Series, backup_id: str, wish: Wish | None = None, names: Iterable[str] = NAMES) -> Run:
    """A run that ends well, and is not confirmed."""
    with series.saving():
        with series.locked() as ledger:
            series.clean(ledger)
            choice = choose(series, ledger, wish or Wish(), [*names])
            run = begun(ledger, backup_id, choice.base and choice.base.backup_id)
            series.put_run(run)
            series.write(ledger)
        complete(series, run, names)
    return run


def confirm(series: Series, backup_id: str) -> bool:
    with series.locked() as ledger:
        return series.confirm(ledger, backup_id)


def read(series: Series) -> Ledger:
    with series.locked() as ledger:
        return ledger


def entry(number: int, base: int | None = None, begun: int = 0, state: str = "confirmed") -> Entry:
    """An archive whose ID is made of its number."""
    based = None if base is None else f"a{base}"
    return Entry(number, f"a{number}", based, begun, 10, digest(str(number)), None, state)


def new(path: Path) -> Series:
    return Series(str(path), create=True)
