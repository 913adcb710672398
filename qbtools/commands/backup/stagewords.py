"""The options of qb-backup that are handed on to the stages, and descriptors that go with them."""

from __future__ import annotations

import io
import json
import os
import re
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from qbtools import directories
from qbtools.commands import cli
from qbtools.commands.archive import openoptions, writeroptions
from qbtools.commands.backup import optionrules
from qbtools.commands.cli import Invocation
from qbtools.descriptors import write_fd
from qbtools.errors import Failed, Refused, UsageError, naming
from qbtools.runs.wiring import Wiring
from qbtools.streams import Reader

_MAX_RECIPIENTS = 1 << 20
_SECRET = ("--passphrase-file", "--passphrase-command")
_OPEN_FILE = re.compile(r"/(?:dev|proc/self)/fd/([0-9]{1,9})|/dev/stdin", re.ASCII)


def script() -> str:
    """The bash file that wires the stages: it is beside the program that runs. Failed if it is not."""
    path = os.path.join(os.path.dirname(os.path.realpath(sys.argv[0])), "qb-backup")
    if not os.access(path, os.X_OK):
        raise Failed(f"{path} is missing: qbtools is not installed correctly")
    return path


def voice(call: Invocation) -> list[str]:
    """-q and -v for the stages."""
    return ["-q"] * call.quiet + ["-v"] * call.verbose


class Inputs:
    """What qb-seal or qb-unseal gets besides the list. A `with` closes what was opened for it.

    words: the options that are handed on. stdin: for the pipe. keep: descriptors that the stages must inherit.
    """

    def __init__(self, call: Invocation, file: str | None = None, secret: bytes | None = None) -> None:
        """Opens the archive FILE (None or `-`: standard input), and sees to it that what options name is readable.

        secret: the passphrase, if it was obtained already.
        """
        create = bool(call.options["create"])
        self._ours: list[int] = []
        self._free = create or file not in (None, "-")  # standard input is not the archive
        self.words = [*(["--progress"] if call.options["--progress"] else []), *voice(call)]
        self.keep: list[int] = []
        self.stdin = 0
        if self._free:
            self.stdin = self._own(_opened(os.devnull if create else str(file)))
        handed = optionrules.SEALING if create else optionrules.OPENING
        for option in (*handed, "--jobs", *(_SECRET if secret is None else ())):
            for value in optionrules.values(call, option):
                self.words.append(f"{option}={self._readable(option, value)}")
            if call.options[option] is True:
                self.words.append(option)
        number = call.options["--passphrase-fd"]
        if secret is not None:
            self.words.append(f"--passphrase-fd={self._kept(self._own(_piped(secret)), 'the passphrase')}")
        elif number is not None:
            fd = self._kept(_descriptor(str(number), "--passphrase-fd", "the passphrase"), "the passphrase")
            self.words.append(f"--passphrase-fd={fd}")

    def _readable(self, option: str, value: str) -> str:
        """The value for a stage: a path that leads to an open descriptor leads to the same one there."""
        if option not in optionrules.FILES or not (match := _OPEN_FILE.fullmatch(value)):
            return value
        what = optionrules.FILES[option]
        return f"/dev/fd/{self._kept(_descriptor(match[1] or '0', option, what), what)}"

    def _kept(self, fd: int, what: str) -> int:
        """A descriptor that stages inherit. what: what is read from it."""
        if fd == 0 and not self._free:
            raise UsageError(f"{what} and the archive cannot both be on standard input")
        if fd == 0:  # the stages have something else there
            fd = self._own(os.dup(0))
        self.keep.append(fd)
        return fd

    def _own(self, fd: int) -> int:
        self._ours.append(fd)
        return fd

    def __enter__(self) -> Inputs:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for fd in self._ours:
            os.close(fd)


def files(call: Invocation) -> dict[str, str]:
    """The files that options name and the run must not touch, by what they are."""
    found = {}
    for option, what in optionrules.FILES.items():
        for path in optionrules.values(call, option):
            found[f"{what} {path}" if isinstance(call.options[option], list) else what] = path
    return found


def keep_recipients(call: Invocation) -> None:
    """Lets several archives be made for the recipients of a FIFO, which can be read once only."""
    paths = call.options["--recipients-file"]
    for at, path in enumerate(paths):
        with naming(f"read the recipients file {path}"):
            if stat.S_ISFIFO(os.stat(path).st_mode):
                data = Reader(io.FileIO(path), path).read_up_to(_MAX_RECIPIENTS + 1)
                if len(data) > _MAX_RECIPIENTS:
                    raise Refused(f"the recipients file {path} has more than {_MAX_RECIPIENTS} bytes")
                copy = os.memfd_create("recipients")
                write_fd(copy, data)
                paths[at] = f"/dev/fd/{copy}"


def _piped(secret: bytes) -> int:
    """The reading end of a pipe that holds the passphrase."""
    ours, theirs = os.pipe()
    os.write(theirs, secret + b"\n")
    os.close(theirs)
    return ours


def _opened(path: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if os.path.isdir(path):
            raise Failed(f"{path} is a directory")
        return fd
    except OSError as error:
        raise Failed(f"cannot read {path}: {error.strerror}") from error


def check_directory(path: str, write: bool) -> None:
    """Failed if path is no directory. write: or if no files can be made and renamed in it."""
    with naming(f"write to {path}"):
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if write:
                directories.check_rename(directory)
        finally:
            os.close(directory)


def _descriptor(text: str, option: str, what: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise UsageError(f"{option}: not a descriptor: {text}")
    with suppress(OSError):
        os.fstat(int(text))
        return int(text)
    raise Failed(f"cannot read {what} from descriptor {text}: it is not open")


def opening(call: Invocation, words: Sequence[str] = ()) -> Wiring:
    """The stages that open the archive FILE. words: for qb-unseal, besides."""
    openoptions.check_keys(call)
    writeroptions.check(call)
    given = Inputs(call, call.options["FILE"])
    return Wiring(script(), "open", {"open": [*given.words, *words]}, voice(call), given.stdin, given.keep)


def announce_cleanup(call: Invocation, what: str) -> None:
    """Says what is done before the run ends. The signal that brought us here is over: a second one ends this."""
    cli.heed_signals()
    call.say(f"{what}: this may take up to a minute; a second signal ends it and leaves them to the next run")


def print_json(call: Invocation, document: dict[str, Any]) -> None:
    """Prints one JSON document."""
    call.stdout(binary=False).write((json.dumps(document, indent=2) + "\n").encode())
