"""The ways in which a program can fail, and the exit status of each. No other module has a status.

The numbers are part of the contract of the command line and are listed in every man page.
"""

from __future__ import annotations

import os

from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sized
    from types import TracebackType


class QbError(Exception):
    """An error that ends a program with one line on stderr.

    message: lower case, no full stop, without the program's name. It never contains a secret. It may contain
    untrusted text unchanged, because control characters are escaped when it is printed.
    hint: a second line that tells the user what to do, or None.
    """

    status = 1

    program: str | None = None
    """The program that reported this error, if it is not the program that prints it."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Failed(QbError):
    """The environment failed: I/O error, no space, a child program failed or is missing (status 1)."""

    status = 1


class OtherPython(Failed):
    """A package is only there for another Python. The program can be run again with that interpreter."""

    def __init__(self, interpreter: str, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.interpreter = interpreter


class UsageError(QbError):
    """The command line is wrong, or would print binary data to a terminal (status 2)."""

    status = 2


class WrongPassphrase(QbError):
    """The keyed check of the header fails, but its plain checksum is right (status 3)."""

    status = 3


PASSPHRASE_HINT = "check for blanks around it, the keyboard layout, and the encoding (UTF-8, no byte order mark)"
"""The hint for a wrong passphrase."""


class Damaged(QbError):
    """The input is malformed, truncated, out of order or not authentic (status 4)."""

    status = 4


class Truncated(Damaged):
    """The input ended before its own end mark (status 4)."""


class Refused(QbError):
    """The request is possible but not safe: a target exists or is in use, or a limit is exceeded (status 5)."""

    status = 5


class Told(QbError):
    """A failure whose message was already printed. Only its status, one of OUR_STATUSES, is passed on.

    message: the printed message, if it is known.
    """

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(message)
        self.status = status

    @classmethod
    def of(cls, error: QbError) -> Told:
        """The same for an error that was just printed."""
        return cls(error.status, error.message)


OUR_STATUSES = (Failed.status, WrongPassphrase.status, Damaged.status, Refused.status)
"""The statuses that a stage inside a CMD may pass on. Status 2 from there is a bug in the wiring, so it becomes 1."""


def of_status(status: int) -> type[QbError]:
    """The kind of error with which another program of ours ended. Failed for a status that is none of these."""
    kinds = {kind.status: kind for kind in (UsageError, WrongPassphrase, Damaged, Refused)}
    return kinds.get(status, Failed)


def escape(text: str) -> str:
    """text with escapes for control characters and everything else that must not reach a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def and_more(found: Sized) -> str:
    """What a message that names one of them says of the others."""
    return f", and {len(found) - 1} more" if len(found) > 1 else ""


class naming:
    """A context manager: an OSError inside becomes Failed: `cannot ACTION: reason`."""

    def __init__(self, action: str) -> None:
        self._action = action

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, OSError):
            raise Failed(f"cannot {self._action}: {os.strerror(error.errno or 0)}") from error
