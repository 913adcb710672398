"""Makes the passphrase of one archive, and the members that contain it wrapped."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from qbtools.errors import Failed, Refused
from qbtools.formats import keymembers
from qbtools.formats.containerhead import Parameters
from qbtools.formats.workers import beside
from qbtools.keys import age
from qbtools.processes import capture, must_succeed

LOG_N = 18
"""Key derivation of the member that a typed passphrase opens. It is done once per archive, so it may cost more than
that of a chunk."""

KEY_COMMAND = "the key command"
"""What messages call the CMD that wraps or opens a passphrase."""

_PREFIX = b"qb-key!"
_SIZE = 32
"""Random bytes of a new passphrase; 52 letters and digits in base32."""

Warn = Callable[[str], None]


class Wraps(NamedTuple):
    """For whom a new passphrase is wrapped.

    recipients, files: for age -r and -R. command: a CMD that reads the passphrase and prints it wrapped. typed: a
    passphrase of the user.
    """

    recipients: Sequence[str] = ()
    files: Sequence[str] = ()
    command: str | None = None
    typed: bytes | None = None


def new_passphrase() -> bytes:
    """52 letters and digits ([a-z2-7]) from 256 random bits."""
    return base64.b32encode(os.urandom(_SIZE)).rstrip(b"=").lower()


def typed_passphrase(typed: bytes) -> bytes:
    """The passphrase that seals the member for a typed passphrase. No chunk is sealed with it."""
    return _PREFIX + typed


def members(wraps: Wraps, passphrase: bytes, warn: Warn) -> list[tuple[str, bytes]]:
    """The key members with the passphrase, by name, in their order in the archive.

    The key of a typed passphrase is derived in a thread, beside the programs. Failed if a program that wraps is missing
    or fails, Refused if its output does not fit in the member.
    """
    found = []
    stretched = None
    if wraps.typed is not None:
        from qbtools.formats import container

        typed = typed_passphrase(wraps.typed)
        stretched = beside(lambda: container.seal_bytes(typed, Parameters(LOG_N), passphrase))
    if wraps.recipients or wraps.files:
        found.append((keymembers.AGE, age.wrap(wraps.recipients, wraps.files, passphrase, warn)))
    if wraps.command is not None:
        found.append((keymembers.COMMAND, _by_command(wraps.command, passphrase)))
    if stretched is not None:
        found.append((keymembers.STRETCHED, stretched.result()))
    return sorted(found, key=lambda member: keymembers.ORDER.index(member[0]))


def memory(wraps: Wraps) -> int:
    """The bytes of memory that members() needs to derive a key."""
    return 0 if wraps.typed is None else Parameters(LOG_N).memory


def _by_command(text: str, passphrase: bytes) -> bytes:
    bound = keymembers.BOUNDS[keymembers.COMMAND]
    blob = capture(text, bound + 1, must_succeed(KEY_COMMAND), data=passphrase + b"\n")
    if len(blob) > bound:
        raise Refused(f"the key command printed more than {bound} bytes")
    if not blob:
        raise Failed("the key command printed nothing")
    return blob
