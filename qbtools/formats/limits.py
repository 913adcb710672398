"""What an archive may cost whoever opens it."""

from __future__ import annotations

from dataclasses import dataclass

from qbtools.errors import Refused
from qbtools.formats import chunks
from qbtools.formats.containerhead import Parameters

MAX_WORK = 1 << 26
"""N·r·p of the dearest derivation: four times what the scrypt program picks for 5 seconds on today's machines."""


@dataclass(frozen=True)
class Limits:
    """Bounds of memory, of time for each key, and of the size of a chunk."""

    memory: int
    """Bytes for key derivation and chunk buffers of all jobs together."""
    work: int = MAX_WORK
    chunk: int = chunks.DEFAULT_CHUNK_SIZE
    """Bytes of the largest chunk of an archive whose header names no chunk size."""

    def check(self, parameters: Parameters) -> None:
        """Refused if a derivation would cost too much time."""
        if parameters.work > self.work:
            raise Refused(
                f"a key derivation of N=2^{parameters.log_n}, r={parameters.r}, p={parameters.p} is beyond the limit",
                "raise --max-work if you trust where the archive comes from",
            )
