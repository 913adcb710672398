"""qb-backup create --series."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

from qbtools import processes
from qbtools.commands.backup import save
from qbtools.commands.cli import Invocation
from qbtools.commands.pipe import volumeoptions
from qbtools.errors import Damaged, Failed, QbError, UsageError
from qbtools.formats import blockindex, manifest, receipt
from qbtools.runs import creating
from qbtools.runs.creating import Given, Indexing, Passages
from qbtools.runs.verdict import Ended
from qbtools.series import choosing, indexes
from qbtools.series.choosing import Choice, Wish
from qbtools.series.directory import RECEIPT, RECORDS, Series, index_name
from qbtools.series.ledger import Ledger
from qbtools.series.runtext import Run


def run(call: Invocation) -> None:
    """Saves volumes. If it returns, the archive is complete. It is confirmed if it is known to be stored."""
    save.check_options(call)
    opts = call.options
    how = volumeoptions.reading(call)
    with save.beside(call) as files:
        given = creating.look(opts["VOLUME"], how)
        series = Series(opts["--series"], create=True)
        with series.saving():
            with series.locked() as ledger:
                begun = _Begun(call, series, ledger, given)
            try:
                contents = creating.contents(given, how, Indexing(begun.numbers, begun.source))
                job = save.Job(begun.run.backup_id, contents, opts["--output"], Passages(), files)
                words = [f"--record={os.path.join(begun.folder, RECORDS)}"]
                if begun.choice.base is not None:
                    words.append(f"--base={os.path.join(begun.choice.folder, RECEIPT)}")
                _seal(call, job._replace(words=words, environment={"QB_SERIES": series.path}))
                _end(call, series, begun, files.text)
            except BaseException:
                series.abandon(begun.run.backup_id)
                raise


class _Begun:
    """A run that has begun: its ID, the numbers of its domains, and its base."""

    def __init__(self, call: Invocation, series: Series, ledger: Ledger, given: Given) -> None:
        opts = call.options
        for backup_id in series.clean(ledger):
            call.note(f"{backup_id} was never confirmed, and cannot be confirmed any more")
        self.numbers = {domain: ledger.number_of(domain) for domain in given.wanted}
        self.names = [creating.archive_name(self.numbers[domain], volume) for domain, volume in given.sources]
        for name in self.names:
            if problem := blockindex.volume_name_problem(name):
                raise UsageError(f"{name}: {problem}")
        wish = Wish(opts["--full"], opts["--differential"], call.number("--full-after", 0, 1 << 30))
        self.choice = choosing.choose(series, ledger, wish, self.names)
        _tell(call, self.choice)
        base = None if self.choice.base is None else self.choice.base.backup_id
        file = None if opts["--output"] is None else os.path.abspath(opts["--output"])
        self.run = Run(ledger.next, save.new_id(), base, max(int(time.time()), 0), file)
        ledger.next += 1
        series.put_run(self.run)
        series.write(ledger)
        self.folder = series.folder(self.run.backup_id)
        self._root = series.path

    def source(self, name: str) -> str:
        """What comes in front of the source of a volume in the list of qb-seal."""
        index = os.path.relpath(os.path.join(self.folder, index_name(name)), self._root)
        base = ""
        if name in self.choice.indexed:
            base = os.path.relpath(os.path.join(self.choice.folder, index_name(name)), self._root)
        return f"changes:{base}:{index}:"


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
    """Makes the run one that can be confirmed, and confirms it if its archive is known to be stored."""
    run = begun.run
    try:
        found = receipt.parse(text)
        records = indexes.read_records(os.path.join(begun.folder, RECORDS), run.backup_id)
        volumes = {}
        for name in begun.names:
            if name not in records or records[name].failed:
                raise Damaged(f"qb-seal has written no record of {name}")
            volumes[name] = manifest.line_digest(records[name])
            indexes.seal(os.path.join(begun.folder, index_name(name)), name, run.backup_id, volumes[name])
        series.put(run.backup_id, RECEIPT, text)
        series.put_run(replace(run, size=found.size, manifest=found.manifest, volumes=volumes))
        if call.options["--output"] is None and call.options["--store"] is None:
            return
        with series.locked() as ledger:
            series.confirm(ledger, run.backup_id)
    except QbError as error:
        raise Failed(f"the archive is complete, but no base of the series: {error.message}", error.hint) from error
