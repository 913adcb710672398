"""Turns a command line into a call, and an error into a message and an exit status. No other module does this."""

from __future__ import annotations

import errno
import os
import sys

from qbtools import __version__, reports
from qbtools.commands import arguments, ending, taken
from qbtools.errors import Failed, OtherPython, QbError, Told, Truncated, UsageError, escape
from qbtools.lean import TYPE_CHECKING, signal, suppress
from qbtools.streams import Reader, Writer, file_reader, stdin_reader, stdout_writer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50}

# For the programs that we start if the caller has no PATH: sudo and service managers may leave it empty.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PACKAGES = ("docopt", "cryptography", "scrypt", "tqdm")
"""The packages that setup.py requires. start.py looks for no others outside Python's library."""


class Invocation:
    """One call of a program: its options as docopt parsed them, and its voice on stderr."""

    def __init__(self, program: str, options: dict[str, Any], given: frozenset[str] = frozenset()) -> None:
        self.program = program
        self.options = options
        self.given = given
        """The options on the command line, by their long names."""
        self.quiet = bool(options.get("--quiet"))
        self.verbose = bool(options.get("--verbose"))

    def warn(self, text: str) -> None:
        """A warning; it never changes the exit status, and --quiet does not hide it."""
        _print(f"{self.program}: warning: {escape(text)}")

    def say(self, text: str) -> None:
        """A message; --quiet hides it."""
        if not self.quiet:
            _print(f"{self.program}: {escape(text)}")

    def note(self, text: str) -> None:
        """A step that is done; only shown with --verbose."""
        if self.verbose:
            _print(f"{self.program}: {escape(text)}")

    def size(self, option: str, low: int = 0, high: int = (1 << 63) - 1) -> int:
        """The option's value as bytes (`4096`, `100M`, `1.5G`). UsageError outside low … high."""
        try:
            value = parse_size(str(self.options[option]))
        except ValueError:
            raise UsageError(f"{option}: not a size: {self.options[option]}", "write 4096, 100M or 1.5G") from None
        if not low <= value <= high:
            raise UsageError(f"{option}: must be between {low} and {high} bytes")
        return value

    def number(self, option: str, low: int, high: int) -> int:
        """The option's value as a decimal number. UsageError outside low … high."""
        text = str(self.options[option])
        if not are_digits(text, 18) or not low <= int(text) <= high:
            raise UsageError(f"{option}: must be a number between {low} and {high}")
        return int(text)

    def stdin(self) -> Reader:
        """Standard input. UsageError if it is a terminal, because nobody types data, or if an option reads it too."""
        if os.isatty(0):
            raise UsageError("standard input is a terminal", f"see {self.program} --help")
        taken.refuse(self.options, os.environ)
        return stdin_reader()

    def input(self, path: str | None) -> Reader:
        """The file at path, or stdin() for `-` and None. Failed if the file cannot be opened."""
        return self.stdin() if path in (None, "-") else file_reader(path)

    def stdout(self, binary: bool = True) -> Writer:
        """Standard output. UsageError if binary data would go to a terminal."""
        if binary and os.isatty(1):
            raise UsageError("refusing to write binary data to a terminal", "redirect it to a file or a pipe")
        return stdout_writer()


def parse_size(text: str) -> int:
    """Bytes from `4096`, `100M`, `1.5G` (powers of 1024). ValueError for anything else, or for a part of a byte."""
    unit = text[-1:] if text[-1:] in _UNITS else ""
    whole, point, fraction = text.removesuffix(unit).partition(".")
    if not are_digits(whole, 19) or (point and not are_digits(fraction, 9)):
        raise ValueError(text)
    scaled = int(whole + fraction) << _UNITS[unit]
    parts: int = 10 ** len(fraction)
    value, rest = divmod(scaled, parts)
    if rest:
        raise ValueError(text)
    return value


def are_digits(text: str, most: int) -> bool:
    """Whether text is a decimal number of at most so many ASCII digits."""
    return text.isascii() and text.isdecimal() and len(text) <= most


def run(
    program: str,
    doc: str,
    main: Callable[[Invocation], None],
    argv: Sequence[str] | None = None,
    help_of: Callable[[Sequence[str]], str] | None = None,
) -> NoReturn:
    """Parses argv with doc, calls main, and ends the process with the status of the contract.

    help_of: returns the text of --help for a command line with these words; None: it is doc.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        _leave(_status(program, doc, main, words, help_of))
    except ending.Terminated as late:  # the signal arrived while an error was handled, or after everything was done
        ending.die(late.number)


def _status(
    program: str,
    doc: str,
    main: Callable[[Invocation], None],
    words: list[str],
    help_of: Callable[[Sequence[str]], str] | None,
) -> int:
    try:
        _occupy_descriptors()
        if not os.environ.get("PATH"):
            os.environ["PATH"] = _PATH
        ending.heed()
        signal.signal(signal.SIGUSR1, ending.disregard)  # until progress.shown handles it
        main(_parse(program, doc, words, help_of))
        return 0
    except BaseException as error:  # every way out of a program is decided here
        if isinstance(error, OtherPython):
            from qbtools.commands import otherpython

            otherpython.restart(program, error)
        return _report(program, error)


def status_of(error: BaseException) -> int:
    """The exit status of a program that ends by error, as a shell shows it."""
    if isinstance(error, ending.Terminated):
        return 128 + error.number
    return 128 + signal.SIGPIPE if isinstance(error, BrokenPipeError) else _as_failure(error).status


def _occupy_descriptors() -> None:
    """Opens those of descriptors 0, 1 and 2 that are closed. Otherwise the next opened file would be standard output.

    They are opened in the wrong direction, so that using them still fails. The programs that we start inherit them.
    """
    for fd, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)


def _report(program: str, error: BaseException) -> int:
    """Prints the message of error and returns the exit status. Ends by the signal if error stands for one."""
    if os.environ.get("QB_DEBUG") == "1" and not isinstance(error, SystemExit):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, SystemExit):
        return 0
    if isinstance(error, ending.Terminated):
        ending.die(error.number)
    if isinstance(error, BrokenPipeError):
        ending.die(signal.SIGPIPE)
    failure = _as_failure(error)
    if not _reported(program, failure) and not isinstance(failure, Told):
        _print(f"{failure.program or program}: error: {escape(failure.message)}")
        if failure.hint:
            _print(f"hint: {escape(failure.hint)}")
    return failure.status


def _as_failure(error: BaseException) -> QbError:
    """Converts any error to one with a message and a status."""
    if isinstance(error, QbError):
        return error
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        hint = "ulimit -n shows the limit" if error.errno == errno.EMFILE else None
        return Failed(f"{where}{error.strerror or error}", hint)
    if isinstance(error, MemoryError):
        return Failed("out of memory")
    if isinstance(error, ModuleNotFoundError) and error.name in PACKAGES:
        return Failed(f"the Python package {error.name} is not installed", "see Install in README.md")
    return Failed(f"internal error: {type(error).__name__}: {error}", "set QB_DEBUG=1 for a traceback")


def _reported(program: str, failure: QbError) -> bool:
    """Reports the failure to the program that started us, if it listens. Returns whether that program prints it.

    It does so for a program that only met an early end of its input, because the stage before may report the reason.
    """
    report = reports.inherited(os.environ)
    if report < 0:
        return False
    deferred = isinstance(failure, Truncated)
    reports.tell(
        report,
        program=failure.program or program,
        status=failure.status,
        deferred=deferred,
        message=failure.message,
        hint=failure.hint,
    )
    return deferred


def _print(line: str) -> None:
    """Prints with one write, so that lines of several stages do not mix. It is not an error if stderr is closed."""
    with suppress(OSError):
        os.write(2, (line + "\n").encode("utf-8", "backslashreplace"))


def _leave(status: int) -> NoReturn:
    """Ends immediately: threads that still wait in a read must not delay the end."""
    os._exit(status)


def _parse(
    program: str, doc: str, words: list[str], help_of: Callable[[Sequence[str]], str] | None = None
) -> Invocation:
    """The call. `--help` and `--version` are answered here (SystemExit 0). UsageError for everything wrong."""
    hint = f"see {program} --help"
    known = arguments.options_of(doc)
    given = arguments.spelled(known, words, hint)
    asked = [key for key, _value in given.options]
    if "--help" in asked:
        _answer((help_of(given.words) if help_of else doc).strip("\n"))
    if "--version" in asked:
        _answer(f"{program} {__version__}")
    found = arguments.match(doc, known, given)
    if found is None:
        found = _by_docopt(doc, given)
    if found is None:
        from qbtools.commands import mistakes

        raise mistakes.explained(program, doc, known, given)
    return Invocation(program, found, frozenset(asked))


def _by_docopt(doc: str, given: arguments.Given) -> dict[str, Any] | None:
    """The result of docopt, which decides the meaning of usage lines; None if they do not allow the arguments.

    None also if docopt is not installed: qb-store must run without it.
    """
    try:
        import docopt
    except ImportError:
        return None
    # A NUL in front prevents that a word counts as an option; no argument of a process can contain one.
    words = [f"\0{word}" if word.startswith("-") else word for word in given.words]
    options = [word for key, value in given.options for word in ((key,) if value is True else (key, str(value)))]
    try:
        found = docopt.docopt(doc, [*options, *words], help=False)
    except docopt.DocoptExit:
        return None
    # docopt counts the values of a repeatable option again for each usage line that it tries.
    repeated = {name for name, value in found.items() if isinstance(value, list) and name.startswith("-")}
    given_values = {name: [value for key, value in given.options if key == name] for name in repeated}
    return {name: _unmarked(value) for name, value in found.items()} | given_values


def _unmarked(value: Any) -> Any:
    """A value of docopt without that mark."""
    if isinstance(value, list):
        return [_unmarked(one) for one in value]
    return value.removeprefix("\0") if isinstance(value, str) else value


def _answer(text: str) -> NoReturn:
    stdout_writer().write(text.encode("utf-8") + b"\n")
    raise SystemExit(0)
