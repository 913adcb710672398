"""Wraps a passphrase with the program age, and opens it again.

https://age-encryption.org/v1 describes the format of age. Only the kinds of the stanzas are read from its header here.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable, Sequence

from qbtools.errors import Damaged, Failed, Refused, WrongPassphrase
from qbtools.formats import keymembers
from qbtools.keys import exchange

HINT = "install age: https://age-encryption.org"

_MAGIC = b"age-encryption.org/v1\n"
_ARMOR = b"-----BEGIN AGE ENCRYPTED FILE-----"
_ARMOR_END = b"-----END AGE ENCRYPTED FILE-----"
_STANZA = re.compile(rb"-> ([!-~]+)((?: [!-~]+)*)")
_RECIPIENT = ("age1", "ssh-")  # how a recipient begins
_BY_PASSPHRASE = "scrypt"
_REPORT = "report unexpected or unhelpful errors"  # the last line of age for every error
_ERROR = "error: "

Warn = Callable[[str], None]


def wrap(
    recipients: Sequence[str], files: Sequence[str], passphrase: bytes, warn: Warn, patience: float | None = None
) -> bytes:
    """The output of age for the passphrase. Every recipient, and every recipient listed in a file, can open it.

    Failed if age is missing or fails, Refused if the output for the recipients does not fit in the member.
    """
    program = exchange.path_of("age", HINT)
    argv = [program]
    for recipient in recipients:
        argv += ["-r", recipient]
    for file in files:
        argv += ["-R", _listing(file)]
    bound = keymembers.BOUNDS[keymembers.AGE]
    outcome = exchange.exchange(argv, passphrase, bound, warn, patience=patience)
    if len(outcome.output) > bound:
        raise Refused(f"too many recipients: what age prints for them has more than {bound} bytes")
    if outcome.status:
        named = next((recipient for recipient in recipients if os.path.exists(recipient)), None)
        hint = None if named is None else f"-R {named} takes the recipients that this file lists"
        raise Failed(f"cannot wrap the passphrase: age: {_reason(outcome)}", hint)
    if not outcome.output.startswith(_MAGIC):
        raise Failed("cannot wrap the passphrase: age printed nothing that is an age file")
    return outcome.output


def unwrap(
    identities: Sequence[str], untrusted_blob: bytes, limit: int, warn: Warn, patience: float | None = None
) -> bytes:
    """The content of an age file. limit: its maximum bytes.

    Damaged if it is not an age file or has more bytes, Refused if it was made with a passphrase (age asks for that
    only on a terminal), WrongPassphrase if age cannot open it, Failed if age is missing, killed or hangs.
    """
    kinds = [kind for kind, _rest in stanzas(untrusted_blob)]
    if _BY_PASSPHRASE in kinds:
        raise Refused(
            f"{keymembers.AGE} was made with a passphrase, not for recipients: age would ask on a terminal",
            "open it by hand with age -d, and give what it prints with --passphrase-command or --passphrase-fd",
        )
    argv = [exchange.path_of("age", HINT), "-d"]
    for identity in identities:
        argv += ["-i", exchange.readable(identity, "the identity")]
    outcome = exchange.exchange(argv, untrusted_blob, limit, warn, patience=patience)
    if len(outcome.output) > limit:
        raise Damaged(f"{keymembers.AGE} holds more than {limit} bytes: that is no passphrase")
    if outcome.status:
        raise WrongPassphrase(f"no identity opens {keymembers.AGE}: age: {_reason(outcome)}")
    return outcome.output


def stanzas(untrusted_blob: bytes) -> list[tuple[str, list[str]]]:
    """The kind (X25519, ssh-ed25519, …) of each recipient of an age file, with the words that follow it.

    Damaged if the header is not valid, with or without armor. Nothing is authenticated.
    """
    header = _dearmored(untrusted_blob)
    if not header.startswith(_MAGIC):
        raise Damaged(f"{keymembers.AGE} is not an age file")
    found: list[tuple[str, list[str]]] = []
    for line in header.split(b"\n")[1:]:
        if line.startswith(b"---"):
            return found
        if match := _STANZA.fullmatch(line):
            found.append((match[1].decode("ascii"), match[2].decode("ascii").split()))
    raise Damaged(f"{keymembers.AGE} is cut: its header does not end")


def _listing(file: str) -> str:
    """A path by which age can read a recipients file."""
    try:
        return exchange.readable(file, "the recipients file")
    except Failed as error:
        hint = "-r takes a recipient, -R a file with recipients" if file.startswith(_RECIPIENT) else None
        raise Failed(error.message, hint) from error


def _dearmored(untrusted_blob: bytes) -> bytes:
    text = untrusted_blob.strip()
    if not text.startswith(_ARMOR):
        return untrusted_blob
    body, end, _rest = text.removeprefix(_ARMOR).partition(_ARMOR_END)
    try:
        if not end:
            raise binascii.Error
        return base64.b64decode(b"".join(body.split()), validate=True)
    except binascii.Error:
        raise Damaged(f"{keymembers.AGE} has a damaged armor") from None


def _reason(outcome: exchange.Outcome) -> str:
    said = [line.removeprefix(_ERROR) for line in outcome.said if not line.startswith(_REPORT)]
    return said[-1] if said else f"ended with status {outcome.status}"
