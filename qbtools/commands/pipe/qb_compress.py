"""qb-compress: compresses standard input."""

from __future__ import annotations

from qbtools import filters
from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.lean import signal

DOC = f"""\
Usage: qb-compress [options] FILTER

Compress standard input to standard output. FILTER is gzip, bzip2, xz, zstd or none.
The program of that name is used. For gzip it is the fastest of igzip, pigz and gzip
that is in PATH.

Options:
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Compresses. The environment has no influence on the result."""
    writer, reader = call.stdout(), call.stdin()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # inherited by the program, which would end on this signal
    filters.compress(call.options["FILTER"], reader, writer, call.note)
