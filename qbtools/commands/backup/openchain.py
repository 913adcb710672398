"""qb-backup list, verify and restore with several archives: a full backup and increments of it."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from qbtools import passphrase
from qbtools.commands.archive import openoptions, receipts, routes, tocommand
from qbtools.commands.backup import open as opened
from qbtools.commands.backup import stagewords
from qbtools.commands.backup.optionrules import command_of
from qbtools.commands.cli import Invocation
from qbtools.descriptors import write_fd
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import QbError, Refused, UsageError, naming
from qbtools.formats import chain, receipt
from qbtools.formats.beginning import Beginning, header_digest
from qbtools.formats.chain import Link
from qbtools.formats.chunks import METADATA
from qbtools.formats.header import BackupHeader
from qbtools.formats.manifest import line_digest
from qbtools.formats.receipt import Receipt
from qbtools.runs import checking, filling, opening, verdict
from qbtools.runs.opening import Enough, Routes
from qbtools.runs.wiring import Wiring
from qbtools.streams import Reader

_LIMITS = ("--max-memory", "--max-work", "--max-chunk", "--jobs")
_SECRETS = ("--passphrase-file", "--passphrase-fd", "--passphrase-command")
_DIGEST = "0" * 64  # no program that opens an archive compares this digest of a receipt


class _Archive(NamedTuple):
    """An archive that was read once: everything but the chunks was checked. fd: its file."""

    path: str
    fd: int
    header: BackupHeader
    beginning: Beginning
    secret: bytes
    link: Link
    failed: Sequence[str]


def run(call: Invocation, files: Sequence[str]) -> None:
    """Lists, verifies or restores the last state of a chain, or that of --at. Raises if any part of it failed."""
    command = command_of(call)
    if call.options["--host"] is not None:
        raise UsageError("several archives do not go with --host", "use --to, --pool or --map")
    with ExitStack() as cleanup:
        archives = _read_all(call, files, cleanup)
        found = chain.order([one.link for one in archives], call.options["--at"])
        by_id = {one.link.backup_id: one for one in archives}
        links = [by_id[one.backup_id] for one in found]
        _check_last(call, links[-1])
        for one in links:
            call.note(f"{one.path}: backup ID {one.link.backup_id}")
        call.options["FILE"] = links[-1].path
        if command == "list":
            _list(call, links[-1])
        elif command == "verify":
            _verify(call, links)
        else:
            _restore(call, links)


def _read_all(call: Invocation, files: Sequence[str], cleanup: ExitStack) -> list[_Archive]:
    """Reads all archives, without their chunks. Nothing is written before."""
    openoptions.check_keys(call)
    demanded = openoptions.terms(call)._replace(receipt=None)  # that one is for the last archive alone
    typed: bytes | None = None
    if not call.options["--identity"] and call.options["--key-command"] is None:
        typed = passphrase.obtain(call.options, os.environ, sealing=False, warn=call.warn)
    found = []
    for path in files:
        fd = _opened(path)
        cleanup.callback(os.close, fd)
        try:
            found.append(_read(call, demanded, path, fd, typed))
        except QbError as error:
            error.message = f"{path}: {error.message}"
            raise
    return found


def _opened(path: str) -> int:
    if path == "-":
        raise UsageError("several archives cannot come on standard input", "name their files")
    with naming(f"read {path}"):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UsageError(f"{path} is not a regular file: several archives can be restored from files only")
    return fd


def _read(call: Invocation, demanded: openoptions.Terms, path: str, fd: int, typed: bytes | None) -> _Archive:
    reader = Reader(io.FileIO(fd, closefd=False), path)
    asked = call
    if typed is not None:  # it is asked for once, and then given to each archive
        pipe = stagewords.piped(typed)
        asked = Invocation(call.program, {**call.options, **dict.fromkeys(_SECRETS), "--passphrase-fd": str(pipe)})
    archive, beginning, secret = openoptions.open_for(asked, demanded, reader)
    for _event in archive.events(lambda _name: False):
        pass
    link = chain.link("the archive", archive.header, archive.manifest_digest, archive.records)
    return _Archive(path, fd, archive.header, beginning, secret, link._replace(label=path), archive.failed)


def _check_last(call: Invocation, last: _Archive) -> None:
    """Compares the last archive with --expect-id, --expect and --require-version."""
    openoptions.check_expectations(call, last.header)
    expected = receipts.expected(call)
    if expected is not None:
        expected.check_header(last.beginning.untrusted_plain, last.beginning.untrusted_sealed)
        expected.check_manifest(last.link.manifest)


class _Handed:
    """What one qb-unseal of an archive is given, so that it opens exactly the archive that was read before.

    secret, receipt: descriptors. They are closed when cleanup ends.
    """

    def __init__(self, archive: _Archive, cleanup: ExitStack) -> None:
        self.secret = stagewords.piped(archive.secret)
        cleanup.callback(os.close, self.secret)
        self.receipt = os.memfd_create("receipt")
        cleanup.callback(os.close, self.receipt)
        plain, sealed, _keys = archive.beginning
        text = Receipt(archive.link.backup_id, header_digest(plain, sealed), archive.link.manifest, _DIGEST, 0)
        write_fd(self.receipt, receipt.serialise(text))


def _limits(call: Invocation) -> list[str]:
    return [f"{option}={call.options[option]}" for option in _LIMITS if option in call.given]


def _voice(call: Invocation) -> list[str]:
    return [*stagewords.voice(call), *(["--progress"] if call.options["--progress"] else [])]


def _stages(call: Invocation, archive: _Archive, cleanup: ExitStack, words: Sequence[str] = ()) -> Wiring:
    """The stages that open one archive, as stagewords.opening()."""
    handed = _Handed(archive, cleanup)
    given = [f"--passphrase-fd={handed.secret}", f"--expect=/dev/fd/{handed.receipt}"]
    os.lseek(archive.fd, 0, os.SEEK_SET)
    groups = {"open": [*_limits(call), *_voice(call), *given, *words]}
    keep = [handed.secret, handed.receipt]
    return Wiring(stagewords.script(), "open", groups, stagewords.voice(call), archive.fd, keep)


def _list(call: Invocation, archive: _Archive) -> None:
    listing = opened.Listed(call)
    with ExitStack() as cleanup:
        stages = _stages(call, archive, cleanup)
        opening.open_all(stages, checking.Listing(listing.show), call.warn, listing.opened)


def _verify(call: Invocation, archives: Sequence[_Archive]) -> None:
    """Verifies each archive of the chain, and that each increment belongs to the volume in the archive before it."""
    lines: dict[str, str] = {}
    for archive in archives:
        call.options["FILE"] = archive.path
        verifying = checking.Verifying(call.warn, lines)
        with ExitStack() as cleanup:
            opened.verify(call, _stages(call, archive, cleanup, ["--verify"]), verifying)
        lines = {name: line_digest(record) for name, record in archive.link.records.items()}


class _First:
    """Takes the metadata of the last archive, or learns that there is none; then the stages can stop."""

    def __init__(self, fill: filling.Filling) -> None:
        self._fill = fill
        self.routes: Routes = ()

    def metadata(self, metadata: Metadata) -> Routes:
        self.routes = self._fill.metadata(metadata)
        raise Enough

    def no_metadata(self, first: str) -> Routes:
        self.routes = self._fill.no_metadata(first)
        raise Enough

    def begun(self, name: str) -> None:
        """Not called: no route is sent."""

    def done(self, name: str, printed: str) -> None:
        """Not called: no route is sent."""

    def passed(self, name: str) -> None:
        """Not called: no route is sent."""

    def lost(self, name: str) -> None:
        """Not called: no route is sent."""


def _restore(call: Invocation, archives: Sequence[_Archive]) -> None:
    """Merges each wanted volume into its target, in the order of the last archive."""
    last = archives[-1]
    kept = {f"the archive {archive.path}": archive.path for archive in archives}
    fill = filling.Filling(opened.where(call, kept), call.note, call.warn)
    first = _First(fill)
    with ExitStack() as cleanup:
        opening.open_all(_stages(call, last, cleanup), first, call.warn)
    targets = dict(first.routes)
    _check_there(last, targets)
    for name in last.link.records:
        target = targets.get(name) or targets.get("*")
        if name == METADATA:
            continue
        if target is None:
            fill.passed(name)
            continue
        call.note(f"{name}: from {len(chain.parts([one.link for one in archives], name))} archives")
        fill.done(name, _merge(call, archives, name, target))
    for name in last.failed:
        fill.lost(name)
    fill.finish()


def _check_there(last: _Archive, targets: Mapping[str, str]) -> None:
    """Damaged if a file that is wanted failed when it was saved, or is missing."""
    wanted = [name for name in targets if name != "*"]
    if failed := [name for name in last.failed if name in wanted or "*" in targets]:
        raise tocommand.incomplete(failed)
    for name in wanted:
        if name not in last.link.records:
            raise routes.missing(name)


def _merge(call: Invocation, archives: Sequence[_Archive], name: str, target: str) -> str:
    """Fills the target of a route of filling.py. Returns what qb-volwrite printed."""
    kind, _, rest = target.partition(":")
    options, _, word = rest.partition(":")
    if kind == "below":
        word = f"{word}/{name}"
    elif kind != "volume":
        raise Refused(f"{name} is an archive of a directory, which has no increments")
    words, keep = [], []
    with ExitStack() as cleanup:
        for part in chain.parts([archive.link for archive in archives], name):
            archive = archives[part.place]
            handed = _Handed(archive, cleanup)
            keep += [archive.fd, handed.secret, handed.receipt]
            words += [*map(str, keep[-3:]), archive.header.method, part.base]
        fill = [*stagewords.voice(call), *options.split(), "--print-size", "--", word]
        groups = {"open": _limits(call), "link": words, "name": [name], "fill": fill}
        ours, theirs = os.pipe()
        printed = cleanup.enter_context(io.FileIO(ours))
        with io.FileIO(theirs, "w"):
            nothing = cleanup.enter_context(io.FileIO(os.devnull))
            wiring = Wiring(stagewords.script(), "merge", groups, _voice(call), nothing.fileno(), keep, stdout=theirs)
            with wiring:
                wiring.tell_all()
                statuses, failures = wiring.run(lambda _event: None)
        verdict.judge(statuses, failures)
        return printed.read(1 << 12).decode("ascii", "replace")
