"""Option texts that several programs share. Each is written once, so that it means the same everywhere."""

from __future__ import annotations

COMMON = """\
  -q --quiet            No progress, no notes. Warnings are always shown.
  -v --verbose          Report each step on stderr.
  -h --help             Show this help.
  --version             Show the version."""

PROGRESS = """\
  --progress            Show progress on stderr even if it is not a terminal."""

PASSPHRASE = """\
  --passphrase-file FILE    Read the passphrase from FILE.
  --passphrase-fd N         Read the passphrase from descriptor N.
  --passphrase-command CMD  Use the output of CMD as the passphrase."""

JOBS = """\
  -j N --jobs N         Work on N chunks at a time (default: the CPUs, at most 4)."""

LOGN = """\
  --logn N              Key derivation takes 2^N blocks of 1 KiB, 10 to 22 (default:
                        17; 10 where the passphrase is made)."""

RECIPIENTS = """\
  -r R --recipient R    Make a passphrase, and wrap it for the age recipient R: a
                        public key of age or SSH; repeatable.
  -R FILE --recipients-file FILE
                        The same for all recipients that FILE lists; repeatable."""

WRAP_PASSPHRASE = """\
  --wrap-passphrase     Make a passphrase, and wrap it with yours, which is then all
                        that it takes to open the archive."""

WRAPPING = f"""\
{RECIPIENTS}
  --key-command CMD     Make a passphrase, and keep in the archive what the bash
                        command CMD prints when it reads it.
{WRAP_PASSPHRASE}"""

IDENTITY = """\
  -i FILE --identity FILE
                        Open the archive with the age identity or SSH key in FILE;
                        repeatable."""

OPENING_COMMAND = """\
  --key-command CMD     Open the archive with the passphrase that the bash command CMD
                        prints when it reads what --key-command stored there."""

SIGNING = """\
  --sign KEYFILE        Sign the archive with the SSH key in KEYFILE: a private key, or
                        a public one whose private key an agent holds.
  --sign-command CMD    Sign the archive with what the bash command CMD prints when it
                        reads the text to sign."""

WRITER = """\
  --signers FILE        Refuse the archive unless it is signed by a key that FILE
                        lists, as in ALLOWED SIGNERS of ssh-keygen(1).
  --signer NAME         Only the keys of NAME in that list count.
  --signers-time T      The keys count that are valid at T, as YYYYMMDD[HHMM[SS]][Z]
                        (default: now).
  --any-writer          Open an archive even if nothing proves who wrote it."""

CHUNK_SIZE = """\
  --chunk-size S        Cut files in chunks of S bytes, at least 64K
                        [default: 100M]."""

RECEIPT = """\
  --receipt FILE        When the archive is complete, write its receipt to FILE, for
                        the option --expect of the programs that read archives."""

BASE = """\
  --base RECEIPT        The archive holds increments of the backup whose receipt is in
                        the file RECEIPT, from --receipt. Qubes OS cannot restore it."""

BACKUP_ID = """\
  --backup-id ID        The backup of which this is a piece; qb-header id makes one."""

COMPRESSION = """\
  --compression C       The compression of the files, for the header:
                        gzip, bzip2, xz, zstd or none [default: gzip]."""

JSON = """\
  --json                Print one JSON document."""

OPENING = """\
  --expect-id ID        Refuse an archive with another backup ID.
  --expect FILE         Refuse an archive that is not the one of the receipt FILE.
  --require-version V   Refuse an archive of another version than V (4).
  --max-memory S        Take at most S bytes for keys and chunks
                        (default: half of what this process may use).
  --max-work N          Refuse key derivations of N*r*p above 2^N [default: 26]."""

MAX_CHUNK = """\
  --max-chunk S         The largest chunk if the header names no size
                        [default: 100M]."""

STATE = """\
  --state STATE         The state to read: snapshot (of now), current (the volume
                        itself, even if it is in use), or before-start (as it was
                        before its machine started, if that is kept). Default: the
                        safest one that is available."""

COW = """\
  --cow ROOM            Room for a snapshot that needs its own, in percent of the
                        volume or a size [default: 10%]."""

OPAQUE = """\
  --opaque              Save a qcow2, vdi or vmdk file even if it needs another
                        file, such as a backing file."""

READING = f"{STATE}\n{COW}\n{OPAQUE}"

FILLING = """\
  --create              Make TARGET, which must not exist unless --overwrite is
                        given too. Implied for a file.
  --overwrite           Replace an existing TARGET, or write over it.
  --shrink              Let a volume that is replaced become smaller.
  --pool-reserve P      Keep P percent of the data space and of the metadata space
                        of a pool free [default: 5]."""

SELECTING = """\
  --include PATTERN     Only domains whose name matches (*, ?, [...]); repeatable.
  --exclude PATTERN     Leave out those whose name matches; repeatable."""

PLANNING = """\
  --rename A=B          Restore A under the name B; repeatable.
  --default-template T  What replaces a missing template: default (the host's),
                        none, or the name of a template [default: default].
  --netvm N             What replaces a missing netvm: default (the host's), none
                        (no network), or keep (a missing one is a problem)
                        [default: default].
  --no-rename           A name that is taken is a problem: do not rename.
  --skip-broken         Leave out the domains that have a problem.
  --ignore-missing      Restore domains without what is missing."""
