"""qb-store: writes an archive on standard input to a file, which gets its name when the archive is complete."""

from __future__ import annotations

from qbtools.commands import options
from qbtools.commands.cli import Invocation
from qbtools.errors import Refused, UsageError
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from qbtools.formats.passing import Passing

DOC = f"""\
Usage:
  qb-store [options] FILE
  qb-store [options] --dir DIR [NAME]

Receive the archive on standard input as FILE, or as NAME in DIR. It is FILE.partial
until it is complete and on disk; an incomplete archive leaves nothing. Its structure
is checked as it passes, without a passphrase. With - as FILE: check it, and write it
to standard output.

Options:
  --dir DIR             Write into DIR only, for the forced command of an SSH key.
                        Without NAME the name comes from SSH_ORIGINAL_COMMAND, which
                        must be NAME or qb-store NAME.
  --overwrite           Replace FILE if it exists.
  --keep-partial        Keep FILE.partial if the archive is not complete.
  --max-size S          Refuse an archive of more than S bytes.
  --idle-limit T        Give up when the sender is silent for so long: 90, 90s, 30m,
                        2h [default: 30m].
{options.COMMON}
"""

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
_LONGEST = 500  # hours; the limit of poll(2) is 596


def main(call: Invocation) -> None:
    """Receives an archive; see DOC."""
    from qbtools import storing
    from qbtools.formats import passing
    from qbtools.streams import Reader

    opts = call.options
    patience = _seconds(call, "--idle-limit")
    limit = call.size("--max-size") if opts["--max-size"] is not None else None
    path = _path(call) if opts["--dir"] is not None else opts["FILE"]
    # With a small block almost no byte of a body is copied in Python.
    reader = Reader(call.stdin().file, "the archive", passing.READ_AHEAD)
    reader.patience = patience
    if opts["--dir"] is None and path == "-":
        for option in ("--overwrite", "--keep-partial"):
            if opts[option]:
                raise UsageError(f"{option} does not go with -, which writes no file")
        _receive(call, passing.Passing(reader, call.stdout(), limit))
        return
    with storing.PartialFile(path, opts["--overwrite"], opts["--keep-partial"]) as file:
        _receive(call, passing.Passing(reader, file.writer, limit, file.begin_writing))
        file.commit()
        call.note(f"{path}: {file.writer.position} bytes")


def _receive(call: Invocation, source: Passing) -> None:
    """Copies an archive to its end, and checks its structure."""
    from qbtools.formats import chunks, header, structure

    try:
        for text in structure.check(source, chunks.DEFAULT_CHUNK_SIZE, call.warn):
            call.note(text)  # only a note: the sender may know it
    except header.OtherVersion as error:
        raise Refused(error.message, "qb-store takes archives of version 4 only") from None


def _seconds(call: Invocation, option: str) -> int:
    """The option's value as seconds (`90`, `90s`, `30m`, `2h`)."""
    import re

    text = str(call.options[option])
    match = re.fullmatch(r"([0-9]{1,9})([smh]?)", text)
    if not match:
        raise UsageError(f"{option}: not a time: {text}", "write 90, 90s, 30m or 2h")
    seconds = int(match[1]) * _UNITS[match[2]]
    if not 1 <= seconds <= _LONGEST * 3600:
        raise UsageError(f"{option}: must be between 1s and {_LONGEST}h")
    return seconds


def _path(call: Invocation) -> str:
    """The path of the file in --dir: NAME, or the name that ssh has passed."""
    import os

    from qbtools.storing import name_problem

    name, asked = call.options["NAME"], os.environ.get("SSH_ORIGINAL_COMMAND")
    if name is not None:
        if problem := name_problem(name):
            raise UsageError(f"NAME {name}: {problem}")
    elif asked is None:
        raise UsageError("no NAME", "give it, or let ssh send it: ssh HOST qb-store NAME")
    else:
        name = asked.removeprefix("qb-store ")
        if problem := "without a name" if name == "qb-store" else name_problem(name):
            raise Refused(f"the command that came through ssh, {asked}: {problem}", "send: qb-store NAME")
    return os.path.join(str(call.options["--dir"]), name)
