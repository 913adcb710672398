"""The ways a program can fail, and the exit status of each. Nothing else in qbtools knows a status.

The numbers are part of the command line's contract and stand in every man page.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


class QbError(Exception):
    """What ends a program with one line on stderr.

    message: lower case, no full stop, without the program's name. It never holds a secret. Text that came from
    outside may stand in it as it is: whoever prints it escapes control characters.
    hint: a second line that tells the user what can be done, or None.
    """

    status = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Failed(QbError):
    """The environment failed: I/O error, no space, a child program failed or is missing (status 1)."""

    status = 1


class UsageError(QbError):
    """The command line makes no sense, or asks for binary data on a terminal (status 2)."""

    status = 2


class WrongPassphrase(QbError):
    """The header's keyed check fails while its plain checksum holds (status 3)."""

    status = 3


class Damaged(QbError):
    """The input is malformed, truncated, out of order or does not authenticate (status 4)."""

    status = 4


class Truncated(Damaged):
    """The input ended before its own end mark (status 4)."""


class Refused(QbError):
    """What was asked for is possible but not safe: a target that exists or is in use, a limit exceeded (status 5)."""

    status = 5


@contextmanager
def naming(action: str) -> Iterator[None]:
    """An OSError inside becomes Failed: `cannot ACTION: reason`."""
    try:
        yield
    except OSError as error:
        raise Failed(f"cannot {action}: {os.strerror(error.errno or 0)}") from error
