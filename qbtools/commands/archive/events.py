"""`--report FILE` of qb-seal and qb-unseal: reports what happens to each file, as lines of JSON for another program.

A line with `"size": N` is followed by N bytes and a newline: the output of a CMD.
"""

from __future__ import annotations

import json
import os
import select
import signal
import threading
import time
from select import PIPE_BUF

from qbtools.descriptors import open_to_append, write_fd
from qbtools.errors import Failed

_AGAIN = 0.5  # seconds

Data = bytes | bytearray | memoryview


class Events:
    """Writes events, or nothing if there is no path. May be used from several threads."""

    def __init__(self, path: str | None) -> None:
        """path: of a pipe, or of a file to which events are appended. Failed if it cannot be opened.

        If the reader of the pipe ends, this program ends as by SIGTERM: nobody needs its work any more.
        """
        self._fd = -1
        self._lock = threading.Lock()
        if path is None:
            return
        try:
            self._fd = open_to_append(path)
        except OSError as error:
            raise Failed(f"cannot write the report to {path}: {error.strerror}") from error
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def wanted(self) -> bool:
        """Whether events are written."""
        return self._fd >= 0

    def tell(self, event: str, name: str, data: Data | None = None, **fields: object) -> None:
        """Writes one event for the file name. Failed on an I/O error."""
        if self._fd < 0:
            return
        if data is not None:
            fields["size"] = len(data)
        line = json.dumps({"event": event, "name": name, **fields}).encode("ascii") + b"\n"
        with self._lock:
            try:
                if data is not None and len(line) + len(data) < PIPE_BUF:
                    line, data = b"".join((line, data, b"\n")), None  # in one piece, also if others write to the pipe
                write_fd(self._fd, line)
                if data is not None:
                    write_fd(self._fd, data)
                    write_fd(self._fd, b"\n")
            except OSError as error:
                raise Failed(f"cannot write the report: {error.strerror}") from error

    def _watch(self) -> None:
        poller = select.poll()
        poller.register(self._fd, 0)  # only POLLERR: there is no reader
        poller.poll()
        while True:  # the first signal may arrive just before the main thread begins to wait for something
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(_AGAIN)
