"""The options --sign and --sign-command of qb-seal and qb-header."""

from __future__ import annotations

from qbtools.commands.cli import Invocation
from qbtools.errors import UsageError
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def signs(call: Invocation, complete: bool = True) -> bool:
    """Whether the archive is signed. UsageError for options that exclude each other, for an empty name or CMD, and if
    no complete archive is written."""
    key, command = call.options["--sign"], call.options["--sign-command"]
    if key is None and command is None:
        return False
    if key is not None and command is not None:
        raise UsageError("--sign and --sign-command exclude each other: an archive has one signature")
    if key == "":
        raise UsageError("--sign: the name is empty")
    if command is not None:
        from qbtools.processes import check_cmd

        check_cmd(command, "--sign-command")
    if not complete:
        raise UsageError("only a complete archive is signed", "qb-header write signs one that is made by hand")
    return True


def signer(call: Invocation, backup_id: str) -> Callable[[bytes, bytes], bytes] | None:
    """A function that makes the signature from the contents of both header members. None if there is no signature.

    ssh-keygen may ask for a passphrase. Failed as sshsig.sign().
    """
    if not signs(call):
        return None

    def sign(plain: bytes, sealed: bytes) -> bytes:
        from qbtools.formats.beginning import header_digest
        from qbtools.keys import sshsig

        text = sshsig.text(backup_id, header_digest(plain, sealed))
        if call.options["--sign"] is None:
            return sshsig.sign_with_command(call.options["--sign-command"], text)
        return sshsig.sign(call.options["--sign"], text, call.warn)

    return sign
