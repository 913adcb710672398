"""The options of qb-seal, qb-header and qb-key that make a passphrase for one archive and wrap it."""

from __future__ import annotations

import os

from qbtools import passphrase
from qbtools.commands.cli import Invocation
from qbtools.errors import UsageError
from qbtools.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

PASSPHRASE = ("--passphrase-file", "--passphrase-fd", "--passphrase-command")
_WRAPPING = ("--recipient", "--recipients-file", "--key-command", "--wrap-passphrase")
IDENTITY = "AGE-SECRET-KEY-"
"""How an identity of age begins. No message may show one: messages end up in logs."""


class Secret(NamedTuple):
    """The passphrase that seals an archive.

    wrap: makes the key members that contain it, by name, in order; none if the user typed it. Errors as
    wrapping.members(). memory: the bytes of memory that this takes.
    """

    passphrase: bytes
    wrap: Callable[[], list[tuple[str, bytes]]]
    memory: int = 0


def makes_passphrase(call: Invocation) -> bool:
    """Whether a new passphrase is made. UsageError for options that exclude each other."""
    given = [option for option in _WRAPPING if call.options[option]]
    for option in PASSPHRASE:
        if given and not call.options["--wrap-passphrase"] and call.options[option] is not None:
            raise UsageError(
                f"{option} is of no use with {given[0]}: a passphrase is made",
                "--wrap-passphrase makes it open the archive too",
            )
    check_wraps(call, "--key-command")
    return bool(given)


def check_wraps(call: Invocation, command: str) -> None:
    """UsageError for invalid recipients or an invalid CMD. command: the option with the CMD."""
    if call.options[command] is not None:
        from qbtools.processes import check_cmd

        check_cmd(call.options[command], command)
    for option, what in (("--recipient", "recipient"), ("--recipients-file", "name")):
        if "" in call.options[option]:
            raise UsageError(f"{option}: the {what} is empty")
    if any(recipient.upper().startswith(IDENTITY) for recipient in call.options["--recipient"]):
        raise UsageError("--recipient: this is an identity, not a recipient", "age-keygen -y prints its recipient")
    if "-" in call.options["--recipients-file"]:
        raise UsageError("--recipients-file: standard input is taken")


def secret(call: Invocation, made: bool) -> Secret:
    """The passphrase for sealing: a new one, or that of the user. Errors as passphrase.obtain().

    made: what makes_passphrase() returned.
    """
    typed = None
    if not made or call.options["--wrap-passphrase"]:
        typed = passphrase.obtain(call.options, os.environ, sealing=True, warn=call.warn)
        if not made:
            return Secret(typed, list)
    from qbtools.keys import wrapping

    passphrase.forbid_core_dumps()
    opts = call.options
    wraps = wrapping.Wraps(opts["--recipient"], opts["--recipients-file"], opts["--key-command"], typed)
    new = wrapping.new_passphrase()
    return Secret(new, lambda: wrapping.members(wraps, new, call.warn), wrapping.memory(wraps))
