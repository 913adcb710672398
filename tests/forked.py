"""Runs our programs many times without starting an interpreter: a server that has loaded all modules forks.

The program runs from its command line to its exit status, with its own descriptors, environment and options. Only
`bin/` and the imports are not repeated, nor is a derivation of a key that the test has made. This is for tests of
hundreds of archives; a few of each kind are also tested with the real program.
"""

from __future__ import annotations

import atexit
import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping
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
for line in sys.stdin:
    program, arguments, changes, files, piped = json.loads(line)
    child = os.fork()
    if not child:
        signal.alarm({TIME})
        for fd, path in enumerate(files):
            os.dup2(os.open(path, os.O_WRONLY | os.O_TRUNC if fd else os.O_RDONLY), fd)
        if piped:
            data = open(0, "rb", closefd=False).read()
            end, start = os.pipe()
            fcntl.fcntl(start, fcntl.F_SETPIPE_SZ, {PIPE})
            os.write(start, data)
            os.dup2(end, 0)
            os.close(end)
            os.close(start)
        os.environ.update(changes)
        module = modules[program]
        cli.run(program, module.DOC, module.main, arguments)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
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
        assert len(data) <= PIPE or not piped
        self._files[0].write_bytes(data)
        assert self._process.stdin and self._process.stdout
        request = [program, arguments, changes, [str(file) for file in self._files], piped]
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        return Ended(status, self._files[1].read_bytes(), self._files[2].read_text())

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()
