"""qb-backup: complete backups with the stages that bin/qb-backup connects."""

from __future__ import annotations

from qbtools.commands import options
from qbtools.commands.backup import mergeoptions, restoreoptions, seriesoptions
from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qbtools.commands.cli import Invocation

DOC = f"""\
Usage:
  qb-backup create [options] [-r R]... [-R FILE]... [--include PATTERN]...
                   [--exclude PATTERN]... [VOLUME...]
  qb-backup list [options] [-i FILE]... [FILE...]
  qb-backup verify [options] [-i FILE]... [FILE...]
  qb-backup restore [options] [-i FILE]... [--map DOMAIN:VOLUME=TARGET]...
                    [--only WHAT]... [--include PATTERN]... [--exclude PATTERN]...
                    [--rename A=B]... [FILE...]
  qb-backup merge [options] [-i FILE]... [-r R]... [-R FILE]... [FILE...]
  qb-backup help [COMMAND]
  qb-backup (-h | --help | --version)

create   saves volumes as one archive: each VOLUME is DOMAIN:NAME=SOURCE, or the
         path of a file or device (the domain is its name without the suffix, and
         the volume is root).
         qb-volread reads them, through snapshots if they can be taken.
         With --host: VOLUMEs are domains; by default all that have
         include_in_backups set.
list     lists the volumes in an archive: domain, class, volume, name in the
         archive, size.
verify   opens, decompresses and reads every file of an archive to its end.
restore  writes the volumes to DIR/DOMAIN/NAME.img, or as --pool and --map say.
         With --host: creates the domains there, by a plan of qb-plan.
merge    writes a full archive of the last state of a full backup and its
         increments: FILEs, in any order. It begins a chain of its own.
help     shows the usage and the options of one COMMAND, as COMMAND --help does.
FILE is an archive, by default or as -, standard input; several: a full backup and its
increments. HOST is dir:DIR, lvm:VG/POOL or NAME:ARGUMENT for another qb-host-NAME.

Options for create and merge:
  -o FILE --output FILE     Write to FILE (FILE.partial until it is complete)
                            instead of standard output.
  --compress C              gzip, zstd, xz, bzip2 or none [default: gzip].
{options.CHUNK_SIZE}
{options.LOGN}
{options.RECIPIENTS}
{options.WRAP_PASSPHRASE}
{options.SIGNING}
  --id-file FILE            Write the backup ID to FILE too.
{seriesoptions.TEXT}

Options for merge:
{mergeoptions.TEXT}

Options for list, verify, restore and merge:
  --json                    Print one JSON document: the list, or a result for each
                            domain (create, restore: with a host only).
  --at ID                   Of several FILEs: the state of the backup ID, not the last.
{restoreoptions.TEXT}
{options.IDENTITY}
{options.OPENING}
{options.WRITER}
{options.MAX_CHUNK}

Options for create and restore with a host:
  --host HOST               The host that owns the domains here.
{options.SELECTING}
  -n --dry-run              Print what would be saved, or the plan, and stop.

Options for create with a host:
  --each                    Make an archive for each domain: DIR/DOMAIN.qbk and
                            DIR/DOMAIN.receipt, where --output and --receipt name DIR.
  --strict                  Save nothing if a domain cannot be saved.

Options for restore to a host:
{options.PLANNING}
  --plan FILE               Check this plan, and carry it out.
  -y --yes                  Do not ask.
  --keep-going              Go on with the other domains when a file fails.
  --keep-failed             Keep domains that failed.
  --keep-macs               libvirt: keep MAC addresses under another name too.
  --verify-only             Do everything except creating domains and writing volumes.
  --files-to DIR            Extract the home of dom0 and the further files of domains
                            to DIR.

Options for all:
{options.JOBS}
{options.PASSPHRASE}
  --key-command CMD         create: make a passphrase, and keep in the archive what
                            the bash command CMD prints when it reads it. Otherwise:
                            open the archive with what CMD prints when it reads that.
{options.PROGRESS}
{options.COMMON}
"""


def main(call: Invocation) -> None:
    """Runs the command."""
    from qbtools.commands.backup import dispatch

    dispatch.run(call, DOC)


def help_of(words: Sequence[str]) -> str:
    """The help for a command line with these words."""
    from qbtools.commands.backup import commandhelp

    return commandhelp.of(DOC, words[0] if words else "")
