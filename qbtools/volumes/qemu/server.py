"""Runs qemu-nbd, which serves one image to this process alone, and qemu-img.

qemu-nbd gets a socket that is listening and has our connection waiting. The name of the socket is gone before qemu-nbd
starts, so that nobody else can connect, and nothing is left however we end. The kernel ends qemu-nbd with us.
"""

from __future__ import annotations

import io
import os
import select

from qbtools import programs
from qbtools.errors import Damaged, Failed, QbError, Refused
from qbtools.lean import TYPE_CHECKING, suppress

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

FIRST = 4
"""The descriptor of the first file of an image in qemu-nbd, whose socket is descriptor 3."""

_FIRST_FILE = 3  # the same in qemu-img
_PATIENCE = 2000  # milliseconds until a program that has closed its connection has ended
_HINT = "install qemu-utils (Debian, Ubuntu) or qemu-img (Fedora)"
_LOCKED = "Is another process using the image"
_MACHINE = ("No such file", "Permission denied", "Input/output error", "Cannot allocate", "No space left")

# qemu-nbd wants its own number in LISTEN_PID (sd_listen_fds(3)). The shell becomes qemu-nbd, so the numbers are equal.
_LISTENING = 'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" "$@"'


class Server:
    """A running qemu-nbd. connect() is for Connection, why() says why it failed."""

    def __init__(self, name: str, node: str, fds: Sequence[int], options: Sequence[str], locked: str | None) -> None:
        """name: of the image, for messages. node: describes it, with fds from FIRST on. locked: a hint if it is in use.

        Failed if qemu-nbd is not installed or cannot be started.
        """
        self._name = name
        self._locked = locked
        self._ours = -1
        self._running: programs.running | None = None
        argv = ["-c", _LISTENING, program("qemu-nbd"), *options, f"json:{node}"]
        listening, self._ours = _sockets()
        try:
            with io.FileIO(os.devnull, "r+") as null:
                both, more = null.fileno(), (listening, *fds)
                running = programs.running(["/bin/sh", *argv], both, both, more=more, name="qemu-nbd")
                self._child = running.__enter__()
                self._running = running
        except BaseException:
            self.close()
            raise
        finally:
            os.close(listening)

    def connect(self, handle: Any) -> None:
        """Gives our end of the connection to libnbd, which closes it."""
        ours, self._ours = self._ours, -1
        handle.aio_connect_socket(ours)

    def why(self, lost: bool) -> QbError | None:
        """Why a request failed, as far as qemu-nbd said so. lost: it has ended the connection."""
        if not lost:
            corrupt = [line for line in self._child.said() if "orrupt" in line]
            return Damaged(f"{self._name}: {corrupt[0]}") if corrupt else None
        if not self._ended():
            return None
        try:
            said = self._child.said() if self._child.wait() >= 0 else []
        except BrokenPipeError:
            return Failed(f"{self._name}: qemu-nbd was killed by SIGPIPE")
        return failure(self._name, said, self._locked) or Failed(f"{self._name}: {self._child.ending()}")

    def _ended(self, patience: int = _PATIENCE) -> bool:
        """Waits for some milliseconds until it has ended."""
        poller = select.poll()
        poller.register(self._child.words, 0)  # POLLHUP alone
        return bool(poller.poll(patience))

    def check(self) -> None:
        """Raises an error if it has ended: then nothing locks the image any more."""
        if self._ended(0) and (error := self.why(True)):
            raise error

    def finish(self) -> None:
        """Waits until it has ended after the connection was closed: everything is in the image. Failed if it failed."""
        if self._running is not None and self._child.wait():
            raise failure(self._name, self._child.said(), self._locked) or Failed(
                f"{self._name}: {self._child.ending()}"
            )
        self.close()

    def close(self) -> None:
        """Ends it, if it still runs."""
        running, self._running = self._running, None
        if running is not None:
            running.__exit__(None, None, None)
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1


def failure(name: str, said: Sequence[str], locked: str | None) -> QbError | None:
    """The error that the messages of a program of QEMU mean."""
    if not said:
        return None
    text = next((line for line in said if _LOCKED in line), said[0])
    if _LOCKED in text:
        return Refused(f"{name} is in use: another program has locked it", locked)
    text = text.rpartition("}': ")[2].rstrip(".")
    if any(word in text for word in _MACHINE):
        return Failed(f"cannot open {name}: {text}")
    return Damaged(f"cannot read the image {name}: {text}")


def image_tool(name: str, fds: Sequence[int], *words: str) -> None:
    """Runs qemu-img with these words; `{0}` is the path of the first of fds. Failed, with its message."""
    path = program("qemu-img")
    paths = [f"/proc/self/fd/{_FIRST_FILE + at}" for at in range(len(fds))]
    argv = [path, *(word.format(*paths) for word in words)]
    with io.FileIO(os.devnull, "r+") as null:
        with programs.running(argv, null.fileno(), null.fileno(), more=fds) as child:
            if child.wait():
                said = child.said()
                text = said[0].replace(paths[0], name) if said else child.ending()
                raise Failed(f"qemu-img {words[0]}: {text.rstrip('.')}")


def check_installed() -> None:
    """Failed if a program of QEMU is missing."""
    for name in ("qemu-nbd", "qemu-img"):
        program(name)


def program(name: str) -> str:
    """The path of a program of QEMU. Failed if it is not installed."""
    path = programs.find(name)
    if path is None:
        raise Failed(f"{name} is not installed, and images need it", _HINT)
    return path


def _sockets() -> tuple[int, int]:
    """A listening socket, and one that is connected to it. Nobody else can connect: its name is gone."""
    import socket

    place = os.path.join(os.environ.get("TMPDIR") or "/tmp", f"qbtools-{os.urandom(8).hex()}")
    os.mkdir(place, 0o700)
    fd = -1
    try:
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        name = f"/proc/self/fd/{fd}/socket"  # the name of a socket is short, that of the directory need not be
        with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as ours:
            listening.bind(name)
            try:
                listening.listen(1)
                ours.connect(name)
            finally:
                with suppress(OSError):
                    os.unlink("socket", dir_fd=fd)
            return listening.detach(), ours.detach()
    finally:
        if fd >= 0:
            os.close(fd)
        os.rmdir(place)
