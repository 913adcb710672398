"""The options that tell the programs that open archives who may have written one."""

from __future__ import annotations

import os
from copy import copy

from qbtools.commands.cli import Invocation
from qbtools.errors import Refused, UsageError
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from qbtools.formats.beginning import Beginning
    from qbtools.keys.sshsig import Signer, Signers

OPTIONS = ("--signers", "--signer", "--signers-time", "--any-writer")


class Writer:
    """Checks who wrote the archive."""

    def __init__(self, call: Invocation) -> None:
        """Reads the list of signers. UsageError as check(), Failed if the list cannot be read."""
        self._call = call
        self._receipt = call.options["--expect"] is not None
        self._signers: Signers | None = None
        if (path := check(call)) is not None:
            from qbtools.keys import sshsig

            self._signers = sshsig.read_signers(path, call.options["--signer"], call.options["--signers-time"])

    def without_receipt(self) -> Writer:
        """The same for an archive that --expect does not name."""
        found = copy(self)
        found._receipt = False
        return found

    def check_signature(self, read: Beginning) -> Signer | None:
        """Checks the signature, if a list of signers was given, and returns who has signed. Needs no passphrase.

        read: the beginning of the archive. Refused for an archive without a signature; errors as sshsig.verify().
        """
        if self._signers is None:
            return None
        from qbtools.formats import beginning, header, keymembers
        from qbtools.keys import sshsig

        untrusted_plain, untrusted_sealed, untrusted_keys = read
        untrusted = header.parse(untrusted_plain)
        if untrusted.version == 3:
            raise Refused("the archive has version 3, which cannot be signed")
        if keymembers.SIGNATURE not in untrusted_keys:
            raise Refused("the archive is not signed", "if you trust its source, open it with --any-writer")
        text = sshsig.text(untrusted.backup_id, beginning.header_digest(untrusted_plain, untrusted_sealed))
        signer = sshsig.verify(untrusted_keys[keymembers.SIGNATURE], text, self._signers)
        self._call.note(f"signed by the key {signer.fingerprint} of {signer.principal}")
        return signer

    def check_proven(self, wrapped: bool) -> None:
        """Refused if nothing proves who wrote the archive.

        wrapped: the passphrase comes from a member of the archive, which everybody with the public key can make.
        """
        opts = self._call.options
        # A receipt is as good as a signature: it names the header.
        if wrapped and not opts["--any-writer"] and self._signers is None and not self._receipt:
            hint = "use --signers for its signature, --expect for its receipt, or --any-writer if you trust its source"
            if opts["--expect"] is not None:
                hint = "--expect names the last archive: use --signers, --any-writer, or archives in regular files"
            raise Refused("nothing proves who wrote the archive", hint)


def check(call: Invocation) -> str | None:
    """The path of the list of signers, or None if no signature is needed. UsageError for options that exclude each
    other, for an empty name, and for a malformed time."""
    opts = call.options
    for option in ("--signers", "--signer"):
        if opts[option] == "":
            raise UsageError(f"{option}: the name is empty")
    if opts["--any-writer"]:
        for option in ("--signers", "--signer", "--signers-time"):
            if opts[option] is not None:
                raise UsageError(f"--any-writer and {option} exclude each other")
        return None
    path = opts["--signers"] or os.environ.get("QB_SIGNERS") or None
    for option in ("--signer", "--signers-time"):
        if opts[option] is not None and path is None:
            raise UsageError(f"{option} needs --signers")
    if opts["--signers-time"] is not None:
        from qbtools.keys import sshsig

        if problem := sshsig.time_problem(opts["--signers-time"]):
            raise UsageError(f"--signers-time: {problem}")
    return path
