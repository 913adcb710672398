"""qb-backup create --series, and the code that it shares with savehost.py."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from qbtools import processes
from qbtools.commands.backup import save, seriessnapshots
from qbtools.commands.backup.seriessnapshots import Keeper
from qbtools.commands.cli import Invocation
from qbtools.commands.pipe import volumeoptions
from qbtools.errors import Damaged, Failed, QbError, UsageError
from qbtools.formats import blockindex, manifest, receipt
from qbtools.formats.manifest import FileRecord
from qbtools.hosts.listing import Held
from qbtools.runs import creating
from qbtools.runs.creating import Indexing, Passages
from qbtools.runs.verdict import Ended
from qbtools.series import choosing, indexes
from qbtools.series.choosing import Choice, Wish
from qbtools.series.directory import RECEIPT, RECORDS, Series, index_name
from qbtools.series.ledger import Ledger
from qbtools.series.runtext import Run
from qbtools.volumes.kind import SourceOptions


def run(call: Invocation) -> None:
    """Saves volumes. If it returns, the archive is complete. It is confirmed if it is known to be stored."""
    save.check_options(call)
    opts = call.options
    how = volumeoptions.reading(call)
    with save.beside(call) as files:
        given = creating.look(opts["VOLUME"], how)

        def job(backup_id: str, indexing: Indexing) -> save.Job:
            return save.Job(backup_id, creating.contents(given, how, indexing), opts["--output"], Passages(), files)

        words = {key: word for key, (word, _) in given.sources.items()}
        add(call, given.wanted, given.sources, job, Keep(words, how))


class Keep(NamedTuple):
    """Volumes whose snapshots are taken before the archive begins, by domain and name, and how they are read."""

    words: Mapping[tuple[str, str], str]
    how: SourceOptions


def add(
    call: Invocation,
    domains: Iterable[str],
    volumes: Iterable[tuple[str, str]],
    job: Callable[[str, Indexing], save.Job],
    keep: Keep | None = None,
) -> None:
    """Adds an archive to the series. If it returns, the archive is complete, and confirmed if it is known to be stored.

    domains: all that have files in the archive, without dom0. volumes: domain and name of each. job: the archive with
    this ID, whose volumes are indexed like this. A volume that fails (see Job.lost) does not become a base. keep: None
    if the job takes the snapshots when it comes to a domain.
    """
    series = Series(call.options["--series"], create=True)
    with series.saving():
        with series.locked() as ledger:
            begun = _Begun(call, series, ledger, domains, volumes)
        try:
            seriessnapshots.settle(call, series)
            keeper = Keeper(call, series, begun.run.backup_id, begun.run.base)
            kept = begun.take_snapshots(keeper, keep) if keep else {}
            source = partial(begun.source, keeper)
            found = job(begun.run.backup_id, Indexing(begun.numbers, source, kept, keeper.take, keeper.points))
            words = [f"--record={os.path.join(begun.folder, RECORDS)}"]
            if begun.choice.base is not None:
                words.append(f"--base={os.path.join(begun.choice.folder, RECEIPT)}")
            _seal(call, found._replace(words=words, environment={"QB_SERIES": series.path}))
            _end(call, series, begun, found.beside.text)
        except BaseException:
            series.abandon(begun.run.backup_id)
            with suppress(QbError):
                seriessnapshots.settle(call, series)
            raise
        seriessnapshots.settle(call, series)


class _Begun:
    """A run that has begun: its ID, the numbers of its domains, the archive names of its volumes, and its base."""

    def __init__(
        self,
        call: Invocation,
        series: Series,
        ledger: Ledger,
        domains: Iterable[str],
        volumes: Iterable[tuple[str, str]],
    ) -> None:
        opts = call.options
        for backup_id in series.clean(ledger):
            call.note(f"{backup_id} was never confirmed, and cannot be confirmed any more")
        self.numbers = {domain: ledger.number_of(domain) for domain in domains}
        self.names = [creating.archive_name(self.numbers[domain], volume) for domain, volume in volumes]
        for name in self.names:
            if problem := blockindex.volume_name_problem(name):
                raise UsageError(f"{name}: {problem}")
        wish = Wish(opts["--full"], opts["--differential"], call.number("--full-after", 0, 1 << 30))
        self.choice = choosing.choose(series, ledger, wish, self.names)
        _tell(call, self.choice)
        base = None if self.choice.base is None else self.choice.base.backup_id
        file = None if opts["--output"] is None else os.path.abspath(opts["--output"])
        for entry in ledger.chain(base) if base is not None and file is not None else ():
            if entry.file == file:
                call.warn(f"{opts['--output']} was also the name of {entry.backup_id}, which the new archive needs")
        self.run = Run(ledger.next, save.new_id(), base, max(int(time.time()), 0), file)
        ledger.next += 1
        series.put_run(self.run)
        series.write(ledger)
        self.folder = series.folder(self.run.backup_id)
        self._root = series.path

    def take_snapshots(self, keeper: Keeper, keep: Keep) -> dict[tuple[str, str], str]:
        """Takes the snapshots that the series keeps. Returns them by domain and name of their volumes."""
        named = {creating.archive_name(self.numbers[key[0]], key[1]): key for key in keep.words}
        taken = keeper.take_each({name: keep.words[key] for name, key in named.items()}, keep.how)
        return {named[name]: spec for name, spec in taken.items()}

    def source(self, keeper: Keeper, name: str, word: str, held: Held | None) -> str:
        """What comes in front of the source of a volume in the list of qb-seal. held: how its host holds it."""
        index = os.path.relpath(os.path.join(self.folder, index_name(name)), self._root)
        base = since = ""
        if name in self.choice.indexed:
            base = os.path.relpath(os.path.join(self.choice.folder, index_name(name)), self._root)
            since = keeper.since(name, word, held)
        return f"changes:{base}:{index}:{since}\t"


def _tell(call: Invocation, choice: Choice) -> None:
    if choice.base is not None:
        call.note(f"saving what has changed since {choice.base.backup_id}: {choice.reason}")
    elif choice.surprising:
        call.warn(f"saving everything: {choice.reason}")
    else:
        call.note(f"saving everything: {choice.reason}")


def _seal(call: Invocation, job: save.Job) -> None:
    """Writes the archive. With --store its command reads it, and ends with success when it is stored.

    However this process ends, the command gets the end of its input only if the archive is complete.
    """
    if call.options["--store"] is None:
        save.seal(call, job)
        return
    command = processes.start_sink(call.options["--store"], {"QB_BACKUP_ID": job.backup_id})
    try:
        try:
            save.seal(call, job._replace(stdout=command.pipe))
            all_read = command.drained()
        except Ended as ended:
            if ended.number != signal.SIGPIPE:
                raise
            all_read = False
        ending = command.finish()
    except BaseException:
        command.abort()
        raise
    if ending.failed:
        raise ending.error("--store")
    if not all_read:
        raise Failed("--store: the command ended before it had read the archive")


def _end(call: Invocation, series: Series, begun: _Begun, text: bytes) -> None:
    """Prepares the run for its confirmation, and confirms it if its archive is known to be stored."""
    run = begun.run
    try:
        found = receipt.parse(text)
        records = indexes.read_records(os.path.join(begun.folder, RECORDS), run.backup_id)
        volumes = _indexed(begun, records)
        series.put(run.backup_id, RECEIPT, text)
        series.put_run(replace(run, size=found.size, manifest=found.manifest, volumes=volumes))
        if call.options["--output"] is None and call.options["--store"] is None:
            return
        with series.locked() as ledger:
            series.confirm(ledger, run.backup_id)
    except QbError as error:
        raise Failed(
            f"the archive is complete, but cannot be the base of the next one: {error.message}", error.hint
        ) from error


def _indexed(begun: _Begun, records: Mapping[str, FileRecord]) -> dict[str, str]:
    """Finishes the indexes. Returns the volumes that can be a base: the SHA-256 of the line of each, by archive name.

    A volume that failed has no index, so the next run saves it whole.
    """
    found = {}
    for name in begun.names:
        path = os.path.join(begun.folder, index_name(name))
        if name not in records:
            raise Damaged(f"qb-seal has written no record of {name}")
        if records[name].failed:
            with suppress(FileNotFoundError):
                os.unlink(path)
            continue
        found[name] = manifest.line_digest(records[name])
        indexes.seal(path, name, begun.run.backup_id, found[name])
    return found
