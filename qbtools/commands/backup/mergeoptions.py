"""The options of qb-backup merge for the passphrase of the new archive, in words that differ from those that open."""

from __future__ import annotations

from qbtools.commands.archive import keyoptions
from qbtools.commands.cli import Invocation
from qbtools.errors import UsageError

TEXT = """\
  --new-passphrase-file FILE
                            Seal the new archive with the passphrase in FILE, or wrap
                            its passphrase with it. Default: the passphrase that
                            opens the FILEs.
  --new-passphrase-fd N     The same with the passphrase from descriptor N.
  --new-passphrase-command CMD
                            The same with the output of CMD.
  --new-key-command CMD     Make a passphrase for the new archive, and keep in it what
                            the bash command CMD prints when it reads that."""

PASSPHRASE = tuple(option.replace("--", "--new-") for option in keyoptions.PASSPHRASE)
"""The options for a passphrase of the user."""

OPTIONS = (*PASSPHRASE, "--new-key-command")


def check(call: Invocation) -> None:
    """UsageError if merge has no archive, and for a new passphrase that would not be used."""
    opts = call.options
    if opts["merge"] and not opts["FILE"]:
        raise UsageError("no file given", f"see {call.program} --help")
    made = next((one for one in ("--recipient", "--recipients-file", "--new-key-command") if opts[one]), None)
    for option in PASSPHRASE:
        if opts[option] is not None and made is not None and not opts["--wrap-passphrase"]:
            raise UsageError(
                f"{option} is of no use with {made}: a passphrase is made",
                "--wrap-passphrase makes it open the archive too",
            )
