"""The options --receipt and --expect: writes the receipt of an archive, and compares archives with receipts."""

from __future__ import annotations

from qbtools.commands.cli import Invocation
from qbtools.errors import UsageError, naming
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from qbtools.formats.header import Base
    from qbtools.formats.opener import Opening
    from qbtools.formats.receipt import ContentDigest, Receipt
    from qbtools.runs.sidefiles import SideFile


class Receipting:
    """The file of --receipt of qb-seal and qb-unseal. A `with` that ends without finish() leaves no file."""

    def __init__(self, call: Invocation, complete: bool) -> None:
        """complete: a complete archive is written. UsageError if not, or for an empty name; Failed if the file cannot
        be written, Refused if the run uses it for something else."""
        self.digest: ContentDigest | None = None
        """The digest of everything that is written; None if no receipt is wanted."""
        self._file: SideFile | None = None
        opts = call.options
        path = _path(call, "--receipt")
        if path is None:
            return
        if not complete:
            raise UsageError("--receipt needs a complete archive", "use --complete too, or leave out --backup-id")
        from qbtools.formats.receipt import ContentDigest
        from qbtools.runs import sidefiles

        others = {
            "the archive": "/dev/stdout",
            "standard input": "/dev/stdin",
            "the list": None if opts.get("LIST") == "-" else opts.get("LIST"),
            "the passphrase": opts["--passphrase-file"],
            "the receipt of --base": opts.get("--base"),
            "that of --record": opts.get("--record"),
            "that of --report": opts["--report"],
            "that of --expect": opts.get("--expect"),
            "the key of --sign": opts.get("--sign"),
            **{f"the recipients {file}": file for file in opts.get("--recipients-file", [])},
        }
        sidefiles.refuse_same("--receipt", path, others)
        self._file = sidefiles.SideFile(path)
        self.digest = ContentDigest()

    def finish(self, backup_id: str) -> None:
        """Writes the receipt when the archive is complete. Failed on an I/O error."""
        if self._file is not None and self.digest is not None:
            from qbtools.formats.receipt import serialise

            self._file.finish(serialise(self.digest.receipt(backup_id)))

    def __enter__(self) -> Receipting:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()


def base(call: Invocation) -> Base | None:
    """The backup that the receipt of --base names. Errors as expected()."""
    found = _read(call, "--base")
    if found is None:
        return None
    from qbtools.formats.header import Base

    return Base(found.backup_id, found.manifest)


def expected(call: Invocation) -> Receipt | None:
    """Reads the receipt of --expect. Failed if it cannot be read, Damaged if it is malformed, UsageError for an empty
    name."""
    return _read(call, "--expect")


def _read(call: Invocation, option: str) -> Receipt | None:
    path = _path(call, option)
    if path is None:
        return None
    import io

    from qbtools.formats import receipt
    from qbtools.streams import Reader

    with naming(f"read {path}"):
        file = io.FileIO(path)
    return receipt.parse(Reader(file, path).read_up_to(receipt.MAX_SIZE + 1), path)


def _path(call: Invocation, option: str) -> str | None:
    path: str | None = call.options[option]
    if path == "":
        raise UsageError(f"{option}: the name is empty")
    return path


def check_beginning(receipt: Receipt | None, opening: Opening) -> None:
    """Compares the header of an archive with the receipt. Called before the user is asked for a passphrase. Refused or
    Damaged if they differ."""
    if receipt is not None:
        receipt.check_header(opening.beginning.untrusted_plain, opening.beginning.untrusted_sealed)
