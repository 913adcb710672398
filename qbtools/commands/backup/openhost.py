"""qb-backup restore --host."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from qbtools.commands import cli, ending
from qbtools.commands.backup import stagewords
from qbtools.commands.cli import Invocation
from qbtools.commands.machines import qb_plan
from qbtools.domains import plantext
from qbtools.domains.planlines import Plan, Written
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import Damaged, QbError, Refused, Told, escape
from qbtools.hosts import results
from qbtools.hosts.client import Host
from qbtools.runs import filling, making, opening, places
from qbtools.runs.opening import Opening
from qbtools.streams import Reader, file_reader

_MAX_PLAN = 64 << 20
_KEEP_MACS = {"QB_LIBVIRT_KEEP_MACS": "1"}


def run(call: Invocation, open_all: Callable[[Opening, Sequence[str]], None] | None = None) -> None:
    """Restores. However the run ends, the domains are finished or removed, and then the report is printed.

    open_all: opens the archive, with more options for qb-unseal; None: it is the FILE.
    """
    opts = call.options
    run = _Run(call, open_all or partial(_open_one, call))
    error: BaseException | None = None
    try:
        run.restore()
    except BaseException as failure:  # new domains must not stay unfinished
        error = failure
    if opts["--dry-run"] and run.plan is not None:
        _show(call, run.plan)
    else:
        error = _ended(call, run.made, error)
    if error is not None:
        raise error


class _Run:
    """A restore to a host. made, plan: None until they exist."""

    def __init__(self, call: Invocation, open_all: Callable[[Opening, Sequence[str]], None]) -> None:
        self._call = call
        self._open_all = open_all
        self._tty = -1
        self.made: making.Making | None = None
        self.plan: Plan | None = None

    def restore(self) -> None:
        call = self._call
        self._tty = _terminal(call)
        host = Host(call.options["--host"], call.warn, _KEEP_MACS if call.options["--keep-macs"] else {})
        agreed = self._agreed if self._tty >= 0 else _yes
        self.made = making.Making(host, _wishes(call), self._show, agreed, call.note, call.warn)
        words = ["--keep-going"] if call.options["--keep-going"] else []
        self._open_all(self.made, words)
        self.made.finish()

    def _show(self, plan: Plan) -> None:
        self.plan = plan
        if not self._call.options["--dry-run"] and (self._tty >= 0 or not self._call.quiet):
            home = self.made.home if self.made else None
            text = "" if home is None else f"# the home of dom0 goes to {escape(home)}\n"
            with suppress(OSError):
                os.write(2, f"{plantext.to_text(plan)}{text}".encode())

    def _agreed(self) -> bool:
        os.write(self._tty, b"Restore this? [y/N] ")
        answer = Reader(io.FileIO(self._tty, closefd=False), "the terminal").read_line(1024)
        return answer.strip().lower() in (b"y", b"yes")


def _open_one(call: Invocation, made: Opening, words: Sequence[str]) -> None:
    opening.open_all(stagewords.opening(call, words), made, call.warn, opening.refuse_increments)


def _yes() -> bool:
    return True


def _ended(call: Invocation, made: making.Making | None, error: BaseException | None) -> BaseException | None:
    """Finishes or removes the domains, and prints the report. Returns the error that ends the run."""
    found = made.results(error is None) if made else []
    others = made.failed_files() if made else []
    home = made.home_results(error is None) if made else []
    words = results.restore_complaint(found, others)
    if error is None:
        error = words
    elif call.options["--keep-going"] and isinstance(error, Told) and words is not None:
        call.warn(words.message)
    if made is not None and made.unfinished:
        error = _settled(call, made, found, error)
    if call.options["--json"]:
        left_out = _left_out(made) if made else []
        status = cli.status_of(error) if error else 0
        about = {"error": error.message if isinstance(error, QbError) else None}
        stagewords.print_json(call, about | results.as_document([*found, *home], status, others, left_out))
    return error


def _left_out(made: making.Making) -> list[Mapping[str, object]]:
    domains = [{"name": line.domain, "reason": line.problem} for line in made.left_out]
    return [*domains, *({"name": name, "reason": "needs --files-to"} for name in made.without_place.names)]


def _settled(
    call: Invocation, made: making.Making, found: list[results.Result], error: BaseException | None
) -> BaseException | None:
    """Finishes or removes domains. Returns the error that ends the run. After a signal, finished domains stay."""
    try:
        if error is None or isinstance(error, QbError):
            return _settled_once(call, made, found, error)
    except ending.Terminated as ended:
        error = ended
        found[:] = [one._replace(problem=one.problem or results.EARLY) for one in found]
    stagewords.announce_cleanup(call, "removing unfinished domains")
    made.hurry()
    return _settled_once(call, made, found, error)


def _settled_once(
    call: Invocation, made: making.Making, found: Sequence[results.Result], error: BaseException | None
) -> BaseException | None:
    try:
        made.settle(found)
    except QbError as problem:
        if error is None:
            return problem
        call.warn(problem.message)
    return error


def _terminal(call: Invocation) -> int:
    """A terminal for the question; -1 if nothing is asked. Refused if there is no terminal."""
    opts = call.options
    if opts["--yes"] or opts["--dry-run"] or opts["--verify-only"]:
        return -1
    with suppress(OSError):
        return os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    raise Refused("there is no terminal to ask for confirmation", "--yes goes on without asking")


def _show(call: Invocation, plan: Plan) -> None:
    if call.options["--json"]:
        stagewords.print_json(call, plantext.as_document(plan))
    else:
        call.stdout(binary=False).write(plantext.to_text(plan).encode())


def _wishes(call: Invocation) -> making.Wishes:
    opts = call.options
    files_to = opts["--files-to"]
    if files_to is not None:
        places.check_directory(files_to, write=not opts["--verify-only"] and not opts["--dry-run"])
        files_to = os.path.abspath(files_to)
    names = ("verify-only", "dry-run", "keep-going", "keep-failed")
    flags = {name.replace("-", "_"): bool(opts[f"--{name}"]) for name in names}
    written = _written(opts["--plan"]) if opts["--plan"] is not None else None
    only = filling.read_only(opts["--only"])
    options = qb_plan.wishes(call)
    options = options._replace(include=[*options.include, *(word.partition(":")[0] for word in only)])
    return making.Wishes(options, written, files_to, only, archive=stagewords.archive_file(call), **flags)


def _written(path: str) -> Callable[[Metadata], Sequence[Written]]:
    """Reads the plan now. It can only be parsed when the metadata is known."""
    data = file_reader(path).read_up_to(_MAX_PLAN + 1)
    if len(data) > _MAX_PLAN:
        raise Refused(f"{path} has more than {_MAX_PLAN >> 20} MiB")
    if not data:
        raise Damaged(f"{path} is empty")
    return lambda metadata: plantext.read(Reader(io.BytesIO(data), path), metadata)
