"""qb-decompress: standard input, decompressed."""

from __future__ import annotations

from qbtools import filters
from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.lean import signal

DOC = f"""\
Usage: qb-decompress [options] FILTER

Decompress standard input to standard output. FILTER is gzip, bzip2, xz, lzma, zstd
or none. The program of that name does it; gzip is done by the fastest of igzip, pigz
and gzip that is in PATH, lzma by xz.

Options:
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Decompresses, and reads standard input to its end; after a failure the output ends with a text that says so."""
    writer, reader = call.stdout(), call.stdin()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # the program inherits that: it would end by it
    filters.decompress(call.options["FILTER"], reader, writer, call.note)
