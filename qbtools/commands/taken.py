"""Refuses options that would read the data on standard input as something else."""

from __future__ import annotations

import os
import stat

from qbtools.errors import UsageError
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

_FILES = (
    *("--recipients-file", "--identity", "--passphrase-file", "--new-passphrase-file", "--sign", "--signers"),
    *("--expect", "--base", "--index", "--routes", "--metadata", "--plan", "--check"),
)
_DESCRIPTORS = ("--passphrase-fd", "--new-passphrase-fd")
_PASSPHRASE = ("--passphrase-file", "--passphrase-fd", "--passphrase-command")


def refuse(options: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """UsageError if an option, or a variable that replaces one, names the open file that is standard input.

    To be called before such a file is read, by a program that reads data from standard input.
    """
    try:
        data = os.fstat(0)
    except OSError:
        return
    if stat.S_ISCHR(data.st_mode) and not os.isatty(0):
        return  # nobody takes anything away from /dev/null
    for option, path in _paths(options, environment):
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(data.st_mode) and not path.startswith(("/dev/", "/proc/")):
            continue  # it is read from its beginning, apart from the data
        if os.path.samestat(data, found):
            raise UsageError(f"{option}: standard input is taken")


def _paths(options: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The files that are read, each with its option or variable."""
    for option in _FILES:
        given = options.get(option)
        for path in given if isinstance(given, list) else [given]:
            if isinstance(path, str):
                yield option, path
    for option in _DESCRIPTORS:
        if options.get(option) is not None:
            yield option, f"/dev/fd/{options[option]}"
    if "--passphrase-file" in options and not any(options.get(option) for option in _PASSPHRASE):
        yield "QB_PASSPHRASE_FILE", environment.get("QB_PASSPHRASE_FILE", "")
    if "--signers" in options and not options["--signers"] and not options.get("--any-writer"):
        yield "QB_SIGNERS", environment.get("QB_SIGNERS", "")
