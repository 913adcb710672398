"""Runs our programs many times without starting an interpreter: a server that has loaded all modules forks.

The program runs from its command line to its exit status, with its own descriptors, environment and options. Only
`bin/` and the imports are not repeated, nor is a derivation of a key that the test has made. Several programs that read
the same data run in one process, one after the other. This is for tests of hundreds of archives; a few of each kind are
also tested with the real program.
"""

from __future__ import annotations

import atexit
import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from support import ROOT, environment

TIME = 60
"""Seconds after which a program that does not end is killed (status 142)."""

PIPE = 1 << 20
"""Bytes that fit in a pipe before somebody reads."""

_SERVER = f"""
import fcntl, gc, importlib, json, os, pickle, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from qbtools.commands import cli
modules = {{}}
for name in ("unseal", "seal", "header", "manifest"):
    modules["qb-" + name] = importlib.import_module("qbtools.commands.archive.qb_" + name)
for name in ("tarextract", "tarwrite"):
    modules["qb-" + name] = importlib.import_module("qbtools.commands.pipe.qb_" + name)
import subprocess, threading, docopt, scrypt
import cryptography.hazmat.primitives.kdf.scrypt
from qbtools import passphrase, progress, progressline
from qbtools.commands.archive import fromcommand, headers, openoptions, sealoptions, signoptions, tocommand, unsealing
from qbtools.formats import deltatar, kdf, opener, sealer, sparsetar, structure, tarreader, volumestream
with open(sys.argv[1], "rb") as file:
    keys = pickle.load(file)
derive = kdf.derive
kdf.derive = lambda *words, **more: keys.get(words) or derive(*words, **more)
gc.freeze()  # so that a child does not copy every page by counting references
class Left(BaseException):  # a program has ended
    pass
def leave(status):
    raise Left(status)
cli._leave = leave
for line in sys.stdin:
    programs, changes, files, piped = json.loads(line)
    child = os.fork()
    if not child:
        signal.alarm({TIME})
        ended = os.fdopen(os.dup(1), "w")
        os.environ.update(changes)
        for program, *arguments in programs:
            for fd, path in enumerate(files):
                file = os.open(path, os.O_WRONLY | os.O_APPEND if fd else os.O_RDONLY)
                os.dup2(file, fd)
                os.close(file)
            if piped:
                data = open(0, "rb", closefd=False).read()
                end, start = os.pipe()
                fcntl.fcntl(start, fcntl.F_SETPIPE_SZ, {PIPE})
                os.write(start, data)
                os.dup2(end, 0)
                os.close(end)
                os.close(start)
            module = modules[program]
            try:
                cli.run(program, module.DOC, module.main, arguments)
            except Left as left:
                sizes = [os.stat(path).st_size for path in files[1:]]
                print(*left.args, *sizes, file=ended, flush=True)
            # Another thread than a worker may still read from descriptor 0.
            if any("_work" not in thread.name for thread in threading.enumerate()[1:]):
                break
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print("end", status, flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit status, minus the signal that killed it."""

    status: int
    stdout: bytes
    stderr: str


class Server:
    """One server, and three files for the descriptors of its programs."""

    def __init__(self, keys: Mapping[tuple[bytes, bytes, int, int, int], bytes] | None = None) -> None:
        """keys: results of kdf.derive that are known, by its arguments."""
        self._folder = tempfile.TemporaryDirectory()
        known = Path(self._folder.name) / "keys"
        known.write_bytes(pickle.dumps(dict(keys or {})))
        self._files = [Path(self._folder.name) / name for name in ("stdin", "stdout", "stderr")]
        for file in self._files:
            file.touch()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, known],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
            start_new_session=True,
        )
        atexit.register(self.close)

    def run(self, program: str, *arguments: str, data: bytes, piped: bool = False, **changes: str) -> Ended:
        """Runs a program with changes in its environment. Its stdin is a file with data, or a pipe."""
        (ended,) = self.run_each([(program, *arguments)], data=data, piped=piped, **changes)
        return ended

    def run_each(
        self, programs: Sequence[Sequence[str]], *, data: bytes, piped: bool = False, **changes: str
    ) -> list[Ended]:
        """Runs programs with their arguments like run(), each with all of data; none after one that a signal kills."""
        assert len(data) <= PIPE or not piped
        self._files[0].write_bytes(data)
        found: list[Ended] = []
        while len(found) < len(programs) and not (found and found[-1].status < 0):
            found += self._go_on([programs[len(found) :], changes, [str(file) for file in self._files], piped])
        return found

    def _go_on(self, request: list[object]) -> Iterator[Ended]:
        """Runs those that can run in one process: after one that leaves threads behind, none can."""
        for file in self._files[1:]:
            file.write_bytes(b"")
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        at: tuple[int, ...] = (0, 0)
        while (line := self._process.stdout.readline().split())[0] != "end":
            status, *to = map(int, line)
            yield self._ended(status, at, to)
            at = tuple(to)
        if line[1] != "0":
            yield self._ended(int(line[1]), at, (None, None))

    def _ended(self, status: int, start: Sequence[int], end: Sequence[int | None]) -> Ended:
        """What one of the programs has written: the parts of both files."""
        parts = zip(self._files[1:], start, end, strict=True)
        said, told = (file.read_bytes()[first:last] for file, first, last in parts)
        return Ended(status, said, told.decode())

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()
