"""Where a passphrase comes from: a file, a descriptor, a command, systemd, the terminal. Never argv."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping

from qbtools.errors import Failed, Refused, UsageError

MAX_SIZE = 1024
"""Bytes of the longest passphrase."""

TRIES = 3
"""How often the terminal is asked if the two typed passphrases differ."""

# MAX_SIZE, two more bytes for the end of the line, and one more to detect a longer passphrase.
_READ = MAX_SIZE + 3

_PR_SET_DUMPABLE = 4  # linux/prctl.h
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # some editors put it in front of a text

Voice = Callable[[str], None]


def obtain(
    options: Mapping[str, str | None],
    environment: Mapping[str, str],
    sealing: bool,
    warn: Voice,
    new: bool = False,
) -> bytes:
    """The passphrase from the first source that is given. This process leaves no core dump from now on.

    options: values of --passphrase-file, --passphrase-fd and --passphrase-command (None: not given).
    sealing: the passphrase will seal something. So it is refused if other programs may not accept it, and the
    terminal is asked twice. new: it replaces another one, so the options are --new-passphrase-file, and so on.
    UsageError if there is no source or two options are given. Failed if the source cannot be read. Refused if the
    passphrase is empty, too long or cannot be used, or the typed ones differ TRIES times.
    """
    forbid_core_dumps()
    passphrase = without_newline(_from_source(options, environment, sealing, warn, "new-" if new else ""))
    if not passphrase:
        raise Refused("the passphrase is empty")
    if passphrase.startswith(_BYTE_ORDER_MARK):
        warn("the passphrase begins with a UTF-8 byte order mark, which is a part of it")
    if len(passphrase) > MAX_SIZE:
        raise Refused(f"the passphrase has more than {MAX_SIZE} bytes")
    if sealing:
        check_for_sealing(passphrase, warn)
    elif b"\0" in passphrase or b"\n" in passphrase:
        raise Refused("the passphrase contains a NUL byte or a newline")
    return passphrase


def forbid_core_dumps() -> None:
    """Forbids core dumps, for every process that has a passphrase. A debugger of the same user cannot attach either.

    Child programs are not affected, except that their soft limit is 0 too.
    """
    import ctypes
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    # The limit alone does not keep the kernel from handing a core to a program such as systemd-coredump.
    if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise Failed("cannot forbid core dumps, which would contain the passphrase")


def without_newline(data: bytes) -> bytes:
    """data without the newline (LF or CR LF) at its end, if there is one."""
    if data.endswith(b"\r\n"):
        return data[:-2]
    return data.removesuffix(b"\n")


def check_for_sealing(passphrase: bytes, warn: Voice) -> None:
    """Refused for a passphrase that other programs may not accept. Warns of white space at its end."""
    # scrypt cuts the passphrase at CR, and Qubes sends it through a terminal.
    if any(byte < 0x20 or byte == 0x7F for byte in passphrase):
        raise Refused("the passphrase contains a control character, which other programs may not accept")
    try:
        text = passphrase.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("the passphrase is not UTF-8, so other programs may not accept it") from None
    if text != text.rstrip():
        warn("the passphrase ends with white space, which Qubes removes")


def _from_source(
    options: Mapping[str, str | None], environment: Mapping[str, str], sealing: bool, warn: Voice, new: str
) -> bytes:
    """new: what the names of the options have in front."""
    names = [f"--{new}passphrase-{kind}" for kind in ("file", "fd", "command")]
    file, fd, command = (options.get(name) for name in names)
    if sum(given is not None for given in (file, fd, command)) > 1:
        raise UsageError(f"{names[0]}, {names[1]} and {names[2]} exclude each other")
    if file is not None:
        return _from_file(file, warn)
    if fd is not None:
        return _from_descriptor(fd, names[1])
    if command is not None:
        return _from_command(command)
    if environment.get("QB_PASSPHRASE_FILE"):
        return _from_file(environment["QB_PASSPHRASE_FILE"], warn)
    if environment.get("QB_PASSPHRASE_COMMAND"):
        return _from_command(environment["QB_PASSPHRASE_COMMAND"])
    if environment.get("CREDENTIALS_DIRECTORY"):
        credential = os.path.join(environment["CREDENTIALS_DIRECTORY"], "qb-passphrase")
        if os.path.exists(credential):
            # An entry in its access control list, for the user of the service, shows as a bit of the group; nobody
            # else can open the directory.
            return _from_file(credential, None)
    return _from_terminal(sealing, new)


def _read(fd: int, what: str) -> bytes:
    data = b""
    try:
        while len(data) < _READ and (more := os.read(fd, _READ - len(data))):
            data += more
    except OSError as error:
        raise Failed(f"cannot read the passphrase from {what}: {error.strerror}") from error
    return data


def _from_file(path: str, warn: Voice | None) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Failed(f"cannot read the passphrase from {path}: {error.strerror}") from error
    try:
        status = os.fstat(fd)
        if warn is not None and stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
            warn(f"the passphrase file {path} can be read by others")
        return _read(fd, path)
    finally:
        os.close(fd)


def _from_descriptor(number: str, option: str) -> bytes:
    if not number.isascii() or not number.isdigit() or len(number) > 9:
        raise UsageError(f"{option}: not a descriptor: {number}")
    data = _read(int(number), f"descriptor {number}")
    if int(number) > 2:
        os.close(int(number))  # no child process may inherit it
    return data


def _from_command(text: str) -> bytes:
    from qbtools.processes import capture, must_succeed  # it takes long to load

    return capture(text, _READ, must_succeed("the passphrase command"))


def _from_terminal(sealing: bool, new: str) -> bytes:
    what = "new passphrase" if new else "passphrase"
    try:
        tty = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise UsageError(
            f"no {what}, and no terminal to ask for one",
            f"use --{new}passphrase-file, --{new}passphrase-fd or --{new}passphrase-command",
        ) from None
    try:
        for left in reversed(range(TRIES)):
            passphrase = _ask(tty, f"{what}: ")
            if not sealing or _ask(tty, f"{what} again: ") == passphrase:
                return passphrase
            if left:
                os.write(tty, b"the two passphrases differ\n")
        raise Refused(f"the two passphrases differ, {TRIES} times")
    finally:
        os.close(tty)


def _ask(tty: int, prompt: str) -> bytes:
    """One line from the terminal, without echo. The settings of the terminal are always restored."""
    import termios

    before = termios.tcgetattr(tty)
    silent = list(before)
    silent[3] = before[3] & ~termios.ECHO
    try:
        # Before the prompt: a script may answer at once, so the echo must already be off, and no input may be lost.
        termios.tcsetattr(tty, termios.TCSAFLUSH, silent)
        os.write(tty, prompt.encode("ascii"))
        line = b""
        while not line.endswith(b"\n") and len(line) <= _READ and (more := os.read(tty, _READ)):
            line += more
    finally:
        termios.tcsetattr(tty, termios.TCSAFLUSH, before)
        os.write(tty, b"\n")
    return line
