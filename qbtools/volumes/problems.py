"""Lets a loop go on after an error, and raises the first one at the end."""

from __future__ import annotations

from qbtools.errors import QbError
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


class Problems:
    """`with problems:` suppresses an error in its body and keeps the first one for later."""

    def __init__(self) -> None:
        self._first: QbError | None = None

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, QbError):
            self._first = self._first or error
            return True
        return False

    def end(self) -> None:
        """Raises the first error, if there was any."""
        if self._first is not None:
            raise self._first
