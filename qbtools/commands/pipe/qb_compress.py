"""qb-compress: standard input, compressed."""

from __future__ import annotations

from qbtools import filters
from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.lean import signal

DOC = f"""\
Usage: qb-compress [options] FILTER

Compress standard input to standard output. FILTER is gzip, bzip2, xz, zstd or none.
The program of that name does it; gzip is done by the fastest of igzip, pigz and gzip
that is in PATH.

Options:
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Compresses; the environment changes nothing of how."""
    writer, reader = call.stdout(), call.stdin()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # the program inherits that: it would end by it
    filters.compress(call.options["FILTER"], reader, writer, call.note)
