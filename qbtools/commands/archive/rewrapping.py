"""qb-key show and rewrap: print the passphrase of an archive, or wrap it again."""

from __future__ import annotations

import os

from qbtools import passphrase, programs
from qbtools.commands.archive import keyoptions, openoptions, receipts, writeroptions
from qbtools.commands.cli import Invocation
from qbtools.errors import Damaged, Refused, UsageError
from qbtools.formats import header, replacing
from qbtools.formats.limits import Limits
from qbtools.formats.opener import Opening
from qbtools.formats.passing import READ_AHEAD, Passing
from qbtools.keys import wrapping
from qbtools.lean import suppress
from qbtools.streams import Reader, Writer

_NEW_PASSPHRASE = tuple(option.replace("--", "--new-") for option in keyoptions.PASSPHRASE)
_NEW = ("--recipient", "--recipients-file", "--new-key-command", "--wrap-passphrase")


def show(call: Invocation) -> None:
    """qb-key show."""
    demanded = openoptions.terms(call)
    reader = call.stdin()
    out = call.stdout(binary=False)
    secret, _header = openoptions.open_header(call, demanded, reader)
    if os.isatty(1) and any(byte < 0x20 or byte == 0x7F for byte in secret):
        raise Refused("the passphrase holds a control character: a terminal would obey it", "redirect standard output")
    out.write(secret + b"\n")


def rewrap(call: Invocation) -> None:
    """qb-key rewrap."""
    _check_wraps(call)
    bounds, writer, receipt = openoptions.terms(call)
    kept = replacing.Kept()
    # With a small block almost no byte of a body is copied in Python.
    source = Passing(Reader(call.stdin().file, "the archive", READ_AHEAD), Writer(kept))
    out = call.stdout()
    passphrase.forbid_core_dumps()
    opening = Opening(source, bounds)
    _check_wrapped(opening)
    receipts.check_beginning(receipt, opening)
    secret = _old(call, opening, bounds, writer)
    openoptions.check_expectations(call, opening.header(secret))
    data = replacing.with_keys(kept.data(), wrapping.members(_wraps(call), secret, call.warn))
    source.direct(out)
    out.write(data)
    try:
        notes = opening.check_rest(call.warn, receipt)
    except Damaged:
        if receipt is not None:  # all of the archive may have passed; the next stage must not take it for complete
            with suppress(OSError):
                programs.spoil(out.fd, out.position)
        raise
    for text in notes:
        call.note(text)


def _check_wraps(call: Invocation) -> None:
    """UsageError if the options for new wraps exclude each other, or there is none."""
    opts = call.options
    keyoptions.check_wraps(call, "--new-key-command")
    if not any(opts[option] for option in _NEW):
        hint = "use -r, -R, --new-key-command or --wrap-passphrase"
        raise UsageError("nothing is given that wraps the passphrase", hint)
    for option in _NEW_PASSPHRASE:
        if opts[option] is not None and not opts["--wrap-passphrase"]:
            raise UsageError(f"{option} needs --wrap-passphrase")


def _check_wrapped(opening: Opening) -> None:
    """Refused for an archive whose passphrase is not wrapped."""
    untrusted = header.parse(opening.beginning.untrusted_plain)
    if not untrusted.key:
        raise Refused(
            "the archive has no wrapped passphrase: its chunks are sealed with the passphrase that somebody typed",
            "only a new backup can have another one",
        )


def _old(call: Invocation, opening: Opening, bounds: Limits, writer: writeroptions.Writer) -> bytes:
    """The passphrase of an archive. Errors as openoptions.secret().

    A typed passphrase proves who wrote an archive. So an archive only gets one if its writer is already proven.
    """
    if call.options["--wrap-passphrase"]:
        return openoptions.secret(call, opening, bounds, writer)
    writer.check_signature(opening.beginning)
    return openoptions.secret(call, opening, bounds)


def _wraps(call: Invocation) -> wrapping.Wraps:
    """The new wraps. Errors as passphrase.obtain()."""
    opts = call.options
    typed = None
    if opts["--wrap-passphrase"]:
        typed = passphrase.obtain(opts, {}, sealing=True, warn=call.warn, new=True)
    return wrapping.Wraps(opts["--recipient"], opts["--recipients-file"], opts["--new-key-command"], typed)
