"""NBD servers of other people for tests, on a Unix socket each, ended when the `with` ends."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from running import wait_until
from support import need


@contextmanager
def serving(socket: Path, *argv: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server that listens on socket once the body runs."""
    process = subprocess.Popen([*map(str, argv)], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: socket.exists() or process.poll() is not None, "the server listens")
        assert process.poll() is None, argv
        yield process
    finally:
        process.kill()
        process.wait()
        socket.unlink(missing_ok=True)


@contextmanager
def _exporting(place: Path, program: str, *options: str, words: Sequence[str | Path]) -> Iterator[str]:
    """A server on a socket in place. options: the last one takes the socket."""
    need(program)
    socket = place / f"{program}.socket"
    with serving(socket, program, *options, socket, *words):
        yield f"nbd:nbd+unix:///?socket={socket}"


@contextmanager
def nbdkit(place: Path, *words: str | Path) -> Iterator[str]:
    """nbdkit with these words of its command line. The word for its export."""
    with _exporting(place, "nbdkit", "-f", "-U", words=words) as word:
        yield word


@contextmanager
def qemu_nbd(place: Path, *words: str | Path) -> Iterator[str]:
    """qemu-nbd with these words of its command line. The word for its export."""
    with _exporting(place, "qemu-nbd", "-t", "-k", words=words) as word:
        yield word
