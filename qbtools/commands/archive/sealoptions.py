"""The options of the sealing programs: qb-seal, qb-header and qb-manifest."""

from __future__ import annotations

import os

from qbtools.commands.archive import capacity, receipts
from qbtools.commands.cli import Invocation
from qbtools.errors import Failed, UsageError
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qbtools.commands.archive.events import Events
    from qbtools.commands.archive.keyoptions import Secret
    from qbtools.formats.containerhead import Parameters
    from qbtools.formats.header import BackupHeader
    from qbtools.formats.manifest import FileRecord
    from qbtools.formats.sealer import Members
    from qbtools.formats.sealing import Settings

MAX_JOBS = 256

MIN_CHUNK_SIZE = 1 << 16
"""Minimum bytes of a chunk size that is written. Any size can be read."""


LOG_N = 17
MADE_LOG_N = 10
"""The default of --logn, for a passphrase of the user and for a new random one, which needs no stretching."""


def parameters(call: Invocation, made: bool = False) -> Parameters:
    """The parameters of every container, from --logn. made: the passphrase is a new random one."""
    from qbtools.formats.containerhead import Parameters

    if call.options["--logn"] is None:
        return Parameters(MADE_LOG_N if made else LOG_N)
    return Parameters(call.number("--logn", 10, 22))


def chunk_size(call: Invocation) -> int:
    """--chunk-size, in bytes."""
    from qbtools.formats import chunks

    # Each chunk costs a key derivation. Tests need many chunks with little data.
    low = 1 if os.environ.get("QB_TEST_SMALL_CHUNKS") == "1" else MIN_CHUNK_SIZE
    return call.size("--chunk-size", low, chunks.MAX_CHUNK_SIZE)


def backup_id(call: Invocation) -> str | None:
    """--backup-id, checked; None if it is not given."""
    from qbtools.formats import header

    text = call.options["--backup-id"]
    problem = header.backup_id_problem(text) if text is not None else None
    if problem:
        raise UsageError(f"--backup-id: {problem}")
    return None if text is None else str(text)


def is_complete(call: Invocation) -> bool:
    """Whether qb-seal writes a complete archive. UsageError for --complete without effect, and for --base without a
    complete archive."""
    opts = call.options
    if opts["--complete"] and opts["--backup-id"] is None:
        raise UsageError("--complete goes with --backup-id", "without it the archive is complete anyway")
    if opts["--base"] is not None and opts["--backup-id"] is not None and not opts["--complete"]:
        raise UsageError("--base needs a complete archive", "use --complete too, or qb-header write")
    return opts["--backup-id"] is None or bool(opts["--complete"])


def backup_header(
    call: Invocation, backup_id: str, manifest: bool = True, key: bool = False, signed: bool = False
) -> BackupHeader:
    """The backup header for --compression, --chunk-size and --base.

    key: the archive contains its wrapped passphrase. signed: the archive has a signature. Errors of receipts.base().
    """
    from qbtools.formats import header

    compression = call.options["--compression"]
    if compression not in header.COMPRESSIONS:
        raise UsageError(f"--compression: must be one of {', '.join(header.COMPRESSIONS)}")
    base = receipts.base(call)
    if base is not None and not manifest:
        raise UsageError("--base and --no-manifest exclude each other: an archive of increments has a manifest")
    return header.new_header(backup_id, compression, chunk_size(call), manifest, key, signed, base)


def memory_budget() -> int:
    """The bytes of memory for all jobs together: half of the memory that this process may use."""
    return capacity.memory() // 2


def sealing_jobs(call: Invocation, settings: Settings) -> int:
    """jobs() for sealing. Warns if there is not enough memory for one job: the kernel may kill the program."""
    each, available = settings.chunk_size + settings.parameters.memory, capacity.memory()
    needed = each + settings.chunk_size  # while one chunk is sealed, the next is read
    if needed > available:
        call.warn(
            f"sealing takes {needed >> 20} MiB of memory, and this process may use {available >> 20} MiB:"
            " --chunk-size and --logn make it less"
        )
    return jobs(call, each, available // 2)


def wrap_in_time(call: Invocation, secret: Secret, settings: Settings, jobs: int) -> Callable[[], Members]:
    """The function that makes the key members while the first chunks are read.

    If there is not enough memory for both, the members are made now. Warns if there is not enough for them alone.
    """
    available = capacity.memory()
    if secret.memory > available:
        call.warn(
            f"wrapping the passphrase takes {secret.memory >> 20} MiB of memory, and this process may use"
            f" {available >> 20} MiB"
        )
    sealing = jobs * (settings.chunk_size + settings.parameters.memory) + settings.chunk_size
    if not secret.memory or secret.memory + sealing <= available - available // 4:  # the rest is for Python and others
        return secret.wrap
    members = secret.wrap()
    return lambda: members


def jobs(call: Invocation, each: int, budget: int) -> int:
    """The number of jobs. Without --jobs: the CPUs of this process, at most 4, and as many as budget has memory for.

    each, budget: bytes.
    """
    if call.options["--jobs"] is not None:
        return call.number("--jobs", 1, MAX_JOBS)
    return max(1, min(capacity.cpus(), 4, budget // each - 1))


def keep(records: Iterator[FileRecord], backup_id: str, path: str | None, events: Events) -> None:
    """Runs the sealing to its end. For each file that is done or has failed, appends a line to path and reports to
    events."""
    import io

    from qbtools.descriptors import open_to_append
    from qbtools.formats import manifest
    from qbtools.streams import Writer

    file = None
    if path is not None:
        try:
            file = Writer(io.FileIO(open_to_append(path), "a"), path)
        except OSError as error:
            raise Failed(f"cannot write to {path}: {error.strerror}") from error
    for record in records:
        if file:
            file.write(manifest.to_line(backup_id, record).encode("ascii"))
        if not record.failed:
            events.tell("sealed", record.name, chunks=record.chunks, bytes=record.size)
