"""The options of qb-backup that are passed to the stages, and the descriptors that belong to them."""

from __future__ import annotations

import io
import json
import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType

from qbtools.commands import ending
from qbtools.commands.archive import openoptions, writeroptions
from qbtools.commands.backup import optionrules
from qbtools.commands.cli import Invocation, are_digits
from qbtools.errors import Failed, Refused, UsageError, naming
from qbtools.lean import TYPE_CHECKING
from qbtools.runs.wiring import Wiring
from qbtools.streams import Reader

if TYPE_CHECKING:
    from typing import Any

_MAX_RECIPIENTS = 1 << 20
_SECRET = ("--passphrase-file", "--passphrase-command")
OPEN_FILE = re.compile(r"/(?:dev|proc/self)/fd/([0-9]{1,9})|/dev/stdin", re.ASCII)
"""The path of an open descriptor: its number, none for 0."""


def script() -> str:
    """The path of the bash program that connects the stages. Failed if it is not in the directory of this program."""
    path = os.path.join(os.path.dirname(os.path.realpath(sys.argv[0])), "qb-backup")
    if not os.access(path, os.X_OK):
        raise Failed(f"{path} is missing: qbtools is not installed correctly")
    return path


def voice(call: Invocation) -> list[str]:
    """-q and -v for the stages."""
    return ["-q"] * call.quiet + ["-v"] * call.verbose


def shown(call: Invocation) -> list[str]:
    """The same and --progress, for the stage that shows the progress."""
    return [*(["--progress"] if call.options["--progress"] else []), *voice(call)]


class Inputs:
    """The options and descriptors for qb-seal or qb-unseal. A `with` closes the files that were opened for them.

    words: the options. stdin: standard input of the pipe. keep: descriptors that the stages must inherit.
    """

    def __init__(self, call: Invocation, file: str | None = None, secret: bytes | None = None) -> None:
        """Opens the archive FILE (None or `-`: standard input), and makes sure that the stages can read named files.

        secret: the passphrase, if it has already been obtained.
        """
        create = bool(call.options["create"])
        self._ours: list[int] = []
        self._free = create or file not in (None, "-")  # standard input is not the archive
        self.words = shown(call)
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
        if secret is None and optionrules.asks_for_passphrase(call):
            self._hand_on("QB_PASSPHRASE_FILE", optionrules.FILES["--passphrase-file"])
        if not create and call.options["--signers"] is None and not call.options["--any-writer"]:
            self._hand_on("QB_SIGNERS", optionrules.FILES["--signers"])
        number = call.options["--passphrase-fd"]
        if secret is not None:
            self.words.append(f"--passphrase-fd={self._kept(self._own(piped(secret)), 'the passphrase')}")
        elif number is not None:
            fd = self._kept(_descriptor(str(number), "--passphrase-fd", "the passphrase"), "the passphrase")
            self.words.append(f"--passphrase-fd={fd}")

    def _readable(self, option: str, value: str) -> str:
        """The value for a stage. A path of an open descriptor is changed so that it names the same file there."""
        if option not in optionrules.FILES or not (match := OPEN_FILE.fullmatch(value)):
            return value
        what = optionrules.FILES[option]
        return f"/dev/fd/{self._kept(_descriptor(match[1] or '0', option, what), what)}"

    def _hand_on(self, variable: str, what: str) -> None:
        """Makes the path of an open descriptor in a variable name the same file for a stage."""
        if match := OPEN_FILE.fullmatch(os.environ.get(variable, "")):
            fd = self._kept(_descriptor(match[1] or "0", variable, what), what)
            os.environ[variable] = f"/dev/fd/{fd}"

    def _kept(self, fd: int, what: str) -> int:
        """A descriptor that stages inherit. what: describes what is read from it."""
        if fd == 0:  # the stages have another standard input
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
    """The files of options that the run must not change, by description."""
    found = {}
    for option, what in optionrules.FILES.items():
        for path in optionrules.values(call, option):
            found[f"{what} {path}" if isinstance(call.options[option], list) else what] = path
    return found


def archive_path(call: Invocation) -> str:
    """The path of the archive that is opened."""
    file = call.options["FILE"]
    return "/dev/stdin" if file in (None, "-") else str(file)


def archive_file(call: Invocation) -> str | None:
    """The same; None if it is not a regular file."""
    path = archive_path(call)
    return path if os.path.isfile(path) else None


class Recipients:
    """The files of --recipients-file, for several archives: a FIFO can only be read once."""

    def __init__(self, call: Invocation) -> None:
        """Reads the FIFOs. Refused if one has more than 1 MiB, and Failed if it cannot be read."""
        self._paths = call.options["--recipients-file"]
        self._read: dict[int, bytes] = {}
        for at, path in enumerate(self._paths):
            with naming(f"read the recipients file {path}"):
                if not stat.S_ISFIFO(os.stat(path).st_mode):
                    continue
                self._read[at] = Reader(io.FileIO(path), path).read_up_to(_MAX_RECIPIENTS + 1)
            if len(self._read[at]) > _MAX_RECIPIENTS:
                raise Refused(f"the recipients file {path} has more than {_MAX_RECIPIENTS} bytes")

    @contextmanager
    def given(self) -> Iterator[None]:
        """In a `with`, the option names pipes that give what was read, for one archive."""
        from qbtools import processes  # it takes long to load

        pipes = {at: processes.fed(data) for at, data in self._read.items()}
        try:
            for at, fd in pipes.items():
                self._paths[at] = f"/dev/fd/{fd}"
            yield
        finally:
            for fd in pipes.values():
                os.close(fd)


def piped(secret: bytes) -> int:
    """The read end of a pipe that contains the passphrase."""
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


def _descriptor(text: str, option: str, what: str) -> int:
    if not are_digits(text, 9):
        raise UsageError(f"{option}: not a descriptor: {text}")
    with suppress(OSError):
        os.fstat(int(text))
        return int(text)
    raise Failed(f"cannot read {what} from descriptor {text}: it is not open")


def opening(call: Invocation, words: Sequence[str] = ()) -> Wiring:
    """The stages that open the archive FILE. words: more options for qb-unseal."""
    openoptions.check_keys(call)
    writeroptions.check(call)
    given = Inputs(call, call.options["FILE"])
    return Wiring(script(), "open", {"open": [*given.words, *words]}, voice(call), given.stdin, given.keep)


def announce_cleanup(call: Invocation, what: str) -> None:
    """Reports the cleanup before the run ends. From now on a second signal ends the run."""
    ending.heed()
    call.say(f"{what}: this may take up to a minute; a second signal ends it and leaves them to the next run")


def print_json(call: Invocation, document: dict[str, Any]) -> None:
    """Prints one JSON document."""
    call.stdout(binary=False).write((json.dumps(document, indent=2) + "\n").encode())
