"""qb-decompress: decompresses standard input."""

from __future__ import annotations

from qbtools import filters
from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.lean import signal

DOC = f"""\
Usage: qb-decompress [options] FILTER

Decompress standard input to standard output. FILTER is gzip, bzip2, xz, lzma, zstd
or none. The program of that name is used. For gzip it is the fastest of igzip, pigz
and gzip that is in PATH, and for lzma it is xz.

Options:
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Decompresses standard input up to its end. After a failure the output ends with a text that says so."""
    writer, reader = call.stdout(), call.stdin()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # inherited by the program, which would end on this signal
    filters.decompress(call.options["FILTER"], reader, writer, call.note)
