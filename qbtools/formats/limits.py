"""Limits of the memory and time that opening an archive may take."""

from __future__ import annotations

import contextlib

from qbtools.errors import Refused
from qbtools.formats import chunks
from qbtools.formats.containerhead import Parameters
from qbtools.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_WORK = 1 << 26
"""Maximum N·r·p of a derivation: four times the value that the scrypt program chooses for 5 seconds today."""


class Limits(NamedTuple):
    """Limits of memory, of the time for each key, and of the size of a chunk."""

    memory: int
    """Bytes for key derivation and chunk buffers of all jobs together."""
    work: int = MAX_WORK
    chunk: int = chunks.DEFAULT_CHUNK_SIZE
    """Maximum bytes of a chunk if the header of the archive names no chunk size."""
    turn: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    """Waits until a key may be derived, and lets others derive theirs at its end. In any thread."""

    def check(self, parameters: Parameters) -> None:
        """Refused if a derivation would cost too much time."""
        if parameters.work > self.work:
            raise Refused(
                f"a key derivation of N=2^{parameters.log_n}, r={parameters.r}, p={parameters.p} is beyond the limit",
                "raise --max-work if you trust where the archive comes from",
            )
