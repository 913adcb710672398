"""The options of the programs that open archives: qb-unseal, qb-header and qb-key."""

from __future__ import annotations

import os
import stat
from contextlib import nullcontext

from qbtools.commands.archive import keyoptions, receipts, sealoptions, writeroptions
from qbtools.commands.cli import Invocation
from qbtools.errors import Refused, UsageError, naming
from qbtools.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from qbtools.formats.beginning import Beginning
    from qbtools.formats.header import BackupHeader
    from qbtools.formats.limits import Limits
    from qbtools.formats.openarchive import Archive
    from qbtools.formats.opener import Opening
    from qbtools.formats.receipt import Receipt
    from qbtools.streams import Reader


class Terms(NamedTuple):
    """What the options demand of an archive. receipt: of --expect, None if it is not given."""

    limits: Limits
    writer: writeroptions.Writer
    receipt: Receipt | None


def terms(call: Invocation) -> Terms:
    """Checks the options, and reads the files that they name, before the archive is read. Errors as limits(),
    writeroptions.Writer and receipts.expected()."""
    return Terms(limits(call), writeroptions.Writer(call), receipts.expected(call))


def limits(call: Invocation) -> Limits:
    """The values of --max-memory, --max-work and, if the program has them, --max-chunk and --turns. UsageError for
    invalid values, and for an empty --expect-id, before anything is read."""
    from qbtools.formats import chunks
    from qbtools.formats import limits as bounds

    opts = call.options
    if opts["--expect-id"] == "":
        raise UsageError("--expect-id: the ID is empty")
    return bounds.Limits(
        memory=call.size("--max-memory", 1 << 20) if opts["--max-memory"] else sealoptions.memory_budget(),
        work=1 << call.number("--max-work", 10, 60),
        chunk=call.size("--max-chunk", 1) if "--max-chunk" in opts else chunks.DEFAULT_CHUNK_SIZE,
        turn=_turns(opts.get("--turns")),
    )


def _turns(directory: str | None) -> Callable[[], AbstractContextManager[None]]:
    if directory is None:
        return nullcontext
    from qbtools.commands.archive import turns

    return turns.of(directory)


def open_archive(call: Invocation, first_wanted: bool) -> Archive:
    """The archive on standard input. Its header is authenticated and agrees with --expect, --expect-id and
    --require-version.

    first_wanted: its first file will be opened.
    """
    demanded = terms(call)
    archive = open_for(call, demanded, call.stdin(), first_wanted)[0]
    archive.expected = demanded.receipt
    check_expectations(call, archive.header)
    return archive


def open_for(
    call: Invocation, demanded: Terms, reader: Reader, first_wanted: bool = False
) -> tuple[Archive, Beginning, bytes]:
    """An archive whose header is authenticated, its beginning and its passphrase. It has not been compared with
    --expect-id and --require-version."""
    opening, found = begin(call, demanded, reader)

    def jobs(each: int) -> int:
        return sealoptions.jobs(call, each, demanded.limits.memory)

    return opening.archive(found, jobs, call.warn, first_wanted), opening.beginning, found


def open_header(call: Invocation, demanded: Terms, reader: Reader) -> tuple[bytes, BackupHeader]:
    """The passphrase and the header of an archive of which no chunk is read; the rest as for open_archive()."""
    opening, found = begin(call, demanded, reader, alone=True)
    header = opening.header(found)
    check_expectations(call, header)
    return found, header


def begin(call: Invocation, demanded: Terms, reader: Reader, alone: bool = False) -> tuple[Opening, bytes]:
    """Reads the beginning of an archive, and obtains its passphrase. alone: as for Opening."""
    from qbtools import passphrase
    from qbtools.formats.opener import Opening

    reader.name = "the archive"
    passphrase.forbid_core_dumps()
    opening = Opening(reader, demanded.limits, alone)
    receipts.check_beginning(demanded.receipt, opening)
    return opening, secret(call, opening, demanded.limits, demanded.writer)


def secret(call: Invocation, opening: Opening, bounds: Limits, writer: writeroptions.Writer | None = None) -> bytes:
    """The passphrase of an archive: from -i or --key-command, otherwise from the user.

    writer: checks who wrote the archive; its errors are raised. None if no content of the archive will be written.
    """
    if writer is None:
        return _unlock(call, opening, bounds)[0]
    writer.check_signature(opening.beginning)
    found, wrapped = _unlock(call, opening, bounds)
    writer.check_proven(wrapped)
    return found


def _unlock(call: Invocation, opening: Opening, bounds: Limits) -> tuple[bytes, bool]:
    """The passphrase, and whether it was wrapped. A wrapped one does not prove who wrote the archive."""
    from qbtools import passphrase

    opts = call.options
    identities, command = opts["--identity"], opts["--key-command"]

    def typed() -> bytes:
        return passphrase.obtain(opts, os.environ, sealing=False, warn=call.warn)

    if not identities and command is None and not opening.beginning.untrusted_keys:
        return typed(), False
    check_keys(call)
    from qbtools.keys import unlocking

    sources = unlocking.Sources(identities, command, typed)
    return unlocking.unlock(opening, sources, bounds, call.warn)


def check_keys(call: Invocation) -> None:
    """UsageError for -i and --key-command with options that they exclude, and for invalid values."""
    opts = call.options
    given = "--identity" if opts["--identity"] else "--key-command"
    if opts[given]:
        for option in keyoptions.PASSPHRASE:
            if opts[option] is not None:
                raise UsageError(f"{given} and {option} exclude each other")
    if "" in opts["--identity"]:
        raise UsageError("--identity: the name is empty")
    if any(identity.upper().startswith(keyoptions.IDENTITY) for identity in opts["--identity"]):
        raise UsageError("--identity: this is an identity, not the file that holds it")
    if "-" in opts["--identity"]:
        raise UsageError("--identity: the archive is on standard input")
    if opts["--key-command"] is not None:
        from qbtools.processes import check_cmd

        check_cmd(opts["--key-command"], "--key-command")


def take_file(call: Invocation) -> None:
    """Makes `qb-unseal FILE` the same as `qb-unseal --list <FILE`.

    The user wants this if FILE is an archive and standard input is a terminal or another device, not an archive.
    """
    from qbtools.formats import magic

    name = call.options["NAME"][0]
    if not stat.S_ISCHR(os.fstat(0).st_mode) or not os.path.isfile(name):
        return
    with naming(f"open {name}"):
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        if magic.kind(os.pread(fd, magic.HEAD, 0)) == magic.ARCHIVE:
            os.dup2(fd, 0)
            call.options.update({"NAME": [], "--list": True})
        os.close(fd)


def check_expectations(call: Invocation, header: BackupHeader) -> None:
    """Refused if an authenticated header does not agree with --expect-id and --require-version."""
    version = call.options["--require-version"]
    if version is not None and version not in ("3", "4"):
        raise UsageError("--require-version: must be 3 or 4")
    # Version 104 is version 4 with increments: who demands 4 refuses 3.
    if version is not None and (header.version == 3) != (version == "3"):
        raise Refused(f"the archive has version {header.version}, not {version}")
    expected = call.options["--expect-id"]
    if expected is not None and header.version == 3:
        raise Refused("the archive has version 3, which knows no backup ID")
    if expected is not None and header.backup_id != expected:
        raise Refused(f"the archive has the backup ID {header.backup_id}, not {expected}")
