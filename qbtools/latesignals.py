"""Lets a signal that asks a program to end wait while a process is started, or a file created, that must not be lost.

A mask would not be enough: Python handles in the main thread what arrives in any thread, even while the main thread
has it blocked.
"""

from __future__ import annotations

import _thread
import os

from qbtools.lean import TYPE_CHECKING, signal

if TYPE_CHECKING:
    from types import TracebackType

_depth = 0
_waiting: list[int] = []


class signals_later:
    """A context manager: a handler that asks waits() is called again when the body ends.

    Does nothing in another thread than the main one: handlers do not run there. What the handler raises leaves the
    context manager, so a caller must be ready for it.
    """

    def __enter__(self) -> None:
        global _depth
        self._main = _thread.get_native_id() == os.getpid()
        if self._main:
            _depth += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        global _depth
        if not self._main:
            return
        _depth -= 1
        if _depth == 0 and _waiting:
            number = _waiting[0]
            _waiting.clear()
            handler = signal.getsignal(number)
            if callable(handler):
                handler(number, None)


def waits(number: int) -> bool:
    """For the handler of a signal: whether it must return at once, because it will be called again later."""
    if _depth:
        _waiting.append(number)
    return _depth > 0
