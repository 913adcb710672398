"""qb-backup create --host."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress

from qbtools import passphrase
from qbtools.commands import cli
from qbtools.commands.archive import keyoptions
from qbtools.commands.backup import save, saveseries, stagewords
from qbtools.commands.backup.beside import Beside, Paths
from qbtools.commands.cli import Invocation
from qbtools.commands.pipe import volumeoptions
from qbtools.domains import names
from qbtools.errors import QbError, Refused, UsageError, escape
from qbtools.hosts import results, savingtext
from qbtools.hosts.client import Host
from qbtools.hosts.results import Result
from qbtools.hosts.saving import Failing
from qbtools.runs import places, savinghost
from qbtools.runs.creating import Indexing, Passages
from qbtools.runs.savinghost import Archive, Survey
from qbtools.runs.sidefiles import Unwritten
from qbtools.volumes import spots
from qbtools.volumes.kind import SourceOptions
from qbtools.volumes.spots import Apart


def run(call: Invocation) -> None:
    """Saves domains. However the run ends, the report is printed. Failed if a domain was not saved."""
    save.check_options(call)
    run = _Run(call)
    error: BaseException | None = None
    try:
        run.save()
    except BaseException as failure:
        error = failure
    finally:
        run.close()
    if call.options["--json"] and not run.shown:
        stagewords.print_json(call, run.report(error))
    if error is not None:
        raise error


class _Run:
    """A backup of a host. shown: a dry run has printed its output."""

    def __init__(self, call: Invocation) -> None:
        self._call = call
        self._begun = time.monotonic()
        self._backup_id: str | None = None
        self._found: list[Result] = []
        self._left_out: list[dict[str, object]] = []
        self._cleanup = ExitStack()
        self.shown = False

    def close(self) -> None:
        """Closes all open files."""
        self._cleanup.close()

    def save(self) -> None:
        """Saves the domains, or prints what would be saved."""
        call, opts = self._call, self._call.options
        how = volumeoptions.reading(call)
        if not opts["--each"]:
            files = self._cleanup.enter_context(save.beside(call))
        else:
            for directory in (opts["--output"], opts["--receipt"]):
                if directory is not None:
                    places.check_directory(directory, write=not opts["--dry-run"])
        if list(opts["VOLUME"]) != [names.ADMIN]:  # the home of dom0 needs no metadata
            _refuse_bare(opts["--host"])
        choice = savinghost.Choice(opts["VOLUME"], opts["--include"], opts["--exclude"])
        host = Host(opts["--host"], call.warn)
        if opts["--checkpoints"] and not host.forgets():
            raise UsageError(f"--checkpoints: the host {host.word} makes no checkpoints")
        survey = savinghost.look(host, choice, how)
        if opts["--each"] and opts["--output"] is not None:
            survey = _without_taken(survey, opts["--output"], opts["--receipt"])
        self._found = results.of_failing(survey.failing)
        self._left_out = savingtext.left_out_document(survey.left_out, survey.unsaved)
        if opts["--dry-run"]:
            _show(call, survey)
            self.shown = True
        else:
            self._check(survey)
            savinghost.release_ended(survey, how)
            if opts["--each"]:
                self._each(survey, how)
            else:
                self._together(survey, how, files)
        if error := results.complaint(self._found, len(survey.machines) + len(survey.failing)):
            raise error

    def _together(self, survey: Survey, how: SourceOptions, files: Beside) -> None:
        """Writes one archive of all machines."""
        call, opts = self._call, self._call.options
        found: Sequence[Result] = [Result(machine.name, problem=results.INCOMPLETE) for machine in survey.machines]
        archive: Archive | None = None
        causes: Mapping[str, str] = {}
        passages = Passages()

        def job(backup_id: str, indexing: Indexing | None = None) -> save.Job:
            nonlocal archive, causes
            self._backup_id = backup_id
            archive = survey.archive(None if indexing is None else indexing.numbers)
            taking = savinghost.Taking(archive, how, indexing)
            causes = taking.causes
            lost = None if opts["--strict"] else _Lost(call, taking)
            return save.Job(backup_id, taking.contents, opts["--output"], passages, files, taking, lost)

        try:
            if opts["--series"] is None:
                save.seal(call, job(save.new_id()))
            else:
                domains = [machine.name for machine in survey.machines if machine.name != names.ADMIN]
                volumes = [(machine.name, one.name) for machine in survey.machines for one in machine.volumes]
                saveseries.add(call, domains, volumes, job)
        finally:
            if archive is not None:
                found = results.of_saving(archive.files, passages.log, passages.complete, causes)
            self._found += found

    def _each(self, survey: Survey, how: SourceOptions) -> None:
        """Writes an archive for each machine. A machine that fails leaves none, and the others are still saved."""
        call, opts = self._call, self._call.options
        secret = None
        if not keyoptions.makes_passphrase(call) or opts["--wrap-passphrase"]:
            secret = passphrase.obtain(opts, os.environ, sealing=True, warn=call.warn)
        recipients = stagewords.Recipients(call)
        for at, machine in enumerate(survey.machines):
            problem: str | None = results.EARLY
            stored = False
            passages = Passages()
            backup_id, path = save.new_id(), _path(opts["--output"], machine.name)
            result = Result(machine.name, problem=problem, state=machine.state)
            causes: Mapping[str, str] = {}
            try:
                archive = survey._replace(machines=[machine]).archive()
                taking = savinghost.Taking(archive, how)
                causes = taking.causes
                with self._receipt(machine.name) as files, recipients.given():
                    save.seal(call, save.Job(backup_id, taking.contents, path, passages, files, taking, None, secret))
                problem, stored = None, True
            except QbError as error:
                problem = ": ".join([error.message or "it failed", *causes.values()])
                stored = isinstance(error, Unwritten)
                if opts["--strict"]:
                    raise
                call.warn(f"{machine.name}{'' if stored else ' cannot be saved'}: {problem}")
            finally:
                if stored:
                    (result,) = results.of_saving(archive.files, passages.log, passages.complete, causes)
                    place = results.Stored(path, backup_id, os.stat(path).st_size)
                    result = result._replace(stored=place, problem=problem)
                if problem is None:
                    self._found.append(result)
                else:
                    rest = survey.machines[at + 1 :] if problem == results.EARLY or opts["--strict"] else ()
                    self._found.append(result._replace(problem=problem))
                    self._found += [Result(one.name, problem=results.EARLY) for one in rest]

    def _receipt(self, domain: str) -> Beside:
        """The file for the receipt of the archive of one domain."""
        opts = self._call.options
        if opts["--receipt"] is None:
            return Beside(Paths())
        paths = Paths(receipt=_receipt_path(opts["--receipt"], domain))
        paths.refuse_same(stagewords.files(self._call))
        return Beside(paths)

    def _check(self, survey: Survey) -> None:
        """Reports what is not saved. Raises if nothing is left to save, or if --strict forbids to continue."""
        call = self._call
        if not survey.machines and not survey.failing:
            raise Refused("no domain is selected for backup", "name one, or set include_in_backups")
        for left_out in survey.left_out:
            call.note(f"left out: {left_out.domain.name} ({left_out.reason})")
        if survey.failing and call.options["--strict"]:
            one = survey.failing[0]
            self._found += [Result(machine.name, problem=results.INCOMPLETE) for machine in survey.machines]
            raise type(one.error)(f"{one.name} cannot be saved: {one.reason}")
        for one in survey.failing:
            call.warn(f"{one.name} cannot be saved: {one.reason}")
        if not survey.machines and (error := results.complaint(self._found, len(survey.failing))):
            raise error

    def report(self, error: BaseException | None) -> dict[str, object]:
        """The result of the run, for JSON."""
        output = self._call.options["--output"]
        size = None
        with suppress(OSError):
            size = os.stat(output).st_size if self._backup_id and output else None
        about: dict[str, object] = {
            "error": error.message if isinstance(error, QbError) else None,
            "backup_id": self._backup_id,
            "archive": None if size is None else output,
            "bytes": size,
            "seconds": round(time.monotonic() - self._begun, 3),
        }
        return about | results.as_document(self._found, cli.status_of(error) if error else 0, left_out=self._left_out)


class _Lost:
    """Warns once for each domain that it is not saved completely."""

    def __init__(self, call: Invocation, taking: savinghost.Taking) -> None:
        self._call = call
        self._taking = taking
        self._told: set[str] = set()

    def __call__(self, name: str, reason: str) -> None:
        domain = self._taking.domain(name)
        if domain not in self._told:
            self._told.add(domain)
            self._call.warn(f"{domain} is not saved completely: {name}: {reason or 'it failed'}")


def _refuse_bare(host: str) -> None:
    """Refused if the host is a directory without metadata: it has no domains yet."""
    place = host.removeprefix("dir:")
    if os.path.isdir(place) and not os.path.lexists(os.path.join(place, "qubes.xml")):
        raise Refused(
            f"{place} has no qubes.xml, which names the domains of a directory",
            "qb-meta create makes one: see the examples in qb-host-dir(1)",
        )


def _path(directory: str, domain: str) -> str:
    return os.path.join(directory, f"{domain}.qbk")


def _receipt_path(directory: str, domain: str) -> str:
    return os.path.join(directory, f"{domain}.receipt")


def _without_taken(survey: Survey, directory: str, receipts: str | None) -> Survey:
    """The survey, in which the machines have failed whose archive or receipt already exists, or has the file of another
    one.

    receipts: the directory for the receipts, if they are wanted.
    """
    machines, failing = [], list(survey.failing)
    archives, others = Apart(), Apart()
    for machine in survey.machines:
        path = _path(directory, machine.name)
        paths = [path]
        other = archives.add(spots.of_file(path), machine.name)
        if receipts is not None:
            paths.append(_receipt_path(receipts, machine.name))
            other = other or others.add(spots.of_file(paths[1]), machine.name)
        taken = next((one for one in paths if os.path.lexists(one)), None)
        if taken is not None:
            failing.append(Failing(machine.name, Refused(f"{taken} already exists")))
        elif other is not None:
            failing.append(Failing(machine.name, Refused(f"{path}: the file system confuses its name and {other}")))
        else:
            machines.append(machine)
    return survey._replace(machines=machines, failing=failing)


def _show(call: Invocation, survey: Survey) -> None:
    shown = survey.machines, survey.left_out, survey.unsaved, survey.failing
    if call.options["--json"]:
        stagewords.print_json(call, savingtext.as_document(*shown))
    else:
        lines = [f"{escape(line)}\n" for line in savingtext.table(*shown)]
        call.stdout(binary=False).write("".join(lines).encode())
