"""The options of qb-backup that are handed on to the stages, and descriptors that go with them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from qbtools.commands import cli
from qbtools.commands.cli import Invocation
from qbtools.errors import Failed, UsageError
from qbtools.runs.wiring import Wiring

SEALING = ("--chunk-size", "--logn")
OPENING = ("--expect-id", "--require-version", "--max-memory", "--max-work", "--max-chunk")
_SECRET = ("--passphrase-file", "--passphrase-command")


def script() -> str:
    """The bash file that wires the stages: it is beside the program that runs. Failed where it is not."""
    path = os.path.join(os.path.dirname(os.path.realpath(sys.argv[0])), "qb-backup")
    if not os.access(path, os.X_OK):
        raise Failed(f"{path} is missing: qbtools is not installed correctly")
    return path


def voice(call: Invocation) -> list[str]:
    """-q and -v for the stages."""
    return ["-q"] * call.quiet + ["-v"] * call.verbose


def chosen(call: Invocation, options: Sequence[str]) -> list[str]:
    """Those of the options that were given, each as one word."""
    return [f"{option}={call.options[option]}" for option in options if option in call.given]


class Inputs(NamedTuple):
    """What the stages read besides the list. words: for the stage that takes the passphrase. stdin: for the pipe.

    keep: descriptors that the stages must inherit.
    """

    words: list[str]
    stdin: int
    keep: list[int]


def inputs(call: Invocation, file: str | None, secret: bytes | None = None) -> Inputs:
    """Opens the archive FILE (None or `-`: standard input) and sees to it that the passphrase can be read beside it.

    secret: the passphrase, if it was obtained already.
    """
    stdin = 0
    if file not in (None, "-"):
        stdin = _opened(str(file))
    words = [
        *(chosen(call, _SECRET) if secret is None else ()),
        *(["--progress"] if call.options["--progress"] else []),
    ]
    if "--jobs" in call.given:
        words.append(f"--jobs={call.options['--jobs']}")
    words += voice(call)
    number = call.options["--passphrase-fd"]
    keep = []
    if secret is not None:
        fd = _piped(secret)
        words.append(f"--passphrase-fd={fd}")
        keep.append(fd)
    elif number is not None:
        fd = _descriptor(str(number))
        if fd == stdin == 0 and not call.options["create"]:
            raise UsageError("the passphrase and the archive cannot both be on standard input")
        if fd == 0:  # the stages have something else there
            fd = os.dup(0)
        words.append(f"--passphrase-fd={fd}")
        keep.append(fd)
    if call.options["create"]:
        stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    return Inputs(words, stdin, keep)


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


def _descriptor(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise UsageError(f"--passphrase-fd: not a descriptor: {text}")
    with suppress(OSError):
        os.fstat(int(text))
        return int(text)
    raise Failed(f"cannot read the passphrase from descriptor {text}: it is not open")


def opening(call: Invocation, words: Sequence[str] = ()) -> Wiring:
    """The stages that open the archive FILE. words: for qb-unseal, besides."""
    given = inputs(call, call.options["FILE"])
    open_words = [*given.words, *chosen(call, OPENING), *words]
    return Wiring(script(), "open", {"open": open_words}, voice(call), given.stdin, given.keep)


def announce_cleanup(call: Invocation, what: str) -> None:
    """Says what is done before the run ends. The signal that brought us here is over: a second one ends this."""
    cli.heed_signals()
    call.say(f"{what}: this may take up to a minute; a second signal ends it and leaves them to the next run")


def print_json(call: Invocation, document: dict[str, Any]) -> None:
    """Prints one JSON document."""
    call.stdout(binary=False).write((json.dumps(document, indent=2) + "\n").encode())
