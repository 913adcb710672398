"""The ways a program can fail, and the exit status of each. Nothing else in qbtools knows a status.

The numbers are part of the command line's contract and stand in every man page.
"""

from __future__ import annotations

import os

from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


class QbError(Exception):
    """What ends a program with one line on stderr.

    message: lower case, no full stop, without the program's name. It never holds a secret. Text that came from
    outside may stand in it as it is: whoever prints it escapes control characters.
    hint: a second line that tells the user what can be done, or None.
    """

    status = 1

    program: str | None = None
    """Whose words these are, where they are not those of the program that prints them."""

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


PASSPHRASE_HINT = "check for blanks around it, the keyboard layout, and the encoding (UTF-8, no byte order mark)"
"""The hint for a wrong passphrase."""


class Damaged(QbError):
    """The input is malformed, truncated, out of order or does not authenticate (status 4)."""

    status = 4


class Truncated(Damaged):
    """The input ended before its own end mark (status 4)."""


class Refused(QbError):
    """What was asked for is possible but not safe: a target that exists or is in use, a limit exceeded (status 5)."""

    status = 5


class Told(QbError):
    """Something failed that the user has been told of already: the status, one of OUR_STATUSES, is passed on.

    message: what the user was told, if that is known.
    """

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(message)
        self.status = status

    @classmethod
    def of(cls, error: QbError) -> Told:
        """The same for an error that the user has just been told of."""
        return cls(error.status, error.message)


OUR_STATUSES = (Failed.status, WrongPassphrase.status, Damaged.status, Refused.status)
"""What a stage inside a CMD may hand on. A 2 that comes from there is a fault of the wiring, so a failure (1)."""


def escape(text: str) -> str:
    """text with control characters, and whatever else no terminal should be sent, as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class naming:
    """A context manager: an OSError inside becomes Failed: `cannot ACTION: reason`."""

    def __init__(self, action: str) -> None:
        self._action = action

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, OSError):
            raise Failed(f"cannot {self._action}: {os.strerror(error.errno or 0)}") from error
