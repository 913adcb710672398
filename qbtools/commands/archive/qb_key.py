"""qb-key: the wrapped passphrase of an archive, and its signature: shows, lists, replaces and checks them."""

from __future__ import annotations

from qbtools.commands import options
from qbtools.commands.cli import Invocation

DOC = f"""\
Usage:
  qb-key show [options] [-i FILE]... [--signers FILE] [--signer NAME]
         [--signers-time T] [-q] [-v]
  qb-key list [--json] [-q] [-v]
  qb-key rewrap [options] [-i FILE]... [-r R]... [-R FILE]... [--new-key-command CMD]
         [--wrap-passphrase] [--new-passphrase-file FILE] [--new-passphrase-fd N]
         [--new-passphrase-command CMD] [--signers FILE] [--signer NAME]
         [--signers-time T] [-q] [-v]
  qb-key check [--signers FILE] [--signer NAME] [--signers-time T] [-q] [-v]
  qb-key (-h | --help | --version)

Work on the wrapped passphrase, or the signature, of the archive on standard input.

show    prints the passphrase that opens the archive.
list    lists what wraps the passphrase and whose signature there is, without any
        key: nothing of it is authenticated.
rewrap  writes the archive to standard output, with its passphrase wrapped for those
        that -r, -R, --new-key-command and --wrap-passphrase name, and for nobody else.
        Nothing else of the archive changes. The structure is checked on the way.
check   checks the signature of the archive, without any other key, and prints who has
        signed it.

Options:
  -r R --recipient R    Wrap the passphrase for the age recipient R: a public key of
                        age or SSH; repeatable.
  -R FILE --recipients-file FILE  Wrap it for all recipients in FILE; repeatable.
  --new-key-command CMD
                        Keep in the archive what the bash command CMD prints when it
                        reads the passphrase.
  --wrap-passphrase     Wrap it with a new passphrase of yours.
  --new-passphrase-file FILE
                        Read the new passphrase from FILE.
  --new-passphrase-fd N
                        Read the new passphrase from descriptor N.
  --new-passphrase-command CMD
                        Take what CMD prints as the new passphrase.
{options.IDENTITY}
{options.OPENING_COMMAND}
{options.WRITER}
{options.OPENING}
{options.PASSPHRASE}
{options.JSON}
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Shows, lists, rewraps or checks; see DOC."""
    from qbtools.commands.archive import keylist, rewrapping

    actions = {
        "show": rewrapping.show,
        "list": keylist.write,
        "rewrap": rewrapping.rewrap,
        "check": keylist.check,
    }
    next(action for name, action in actions.items() if call.options[name])(call)
