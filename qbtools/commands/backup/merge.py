"""qb-backup merge: makes one full archive of a full backup and its increments."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from qbtools import passphrase
from qbtools.commands.archive import keyoptions, tocommand
from qbtools.commands.backup import chainlinks, chainstages, mergeoptions, save, stagewords
from qbtools.commands.cli import Invocation
from qbtools.runs.chaining import Streams
from qbtools.runs.eventpipe import EventPipe
from qbtools.runs.listpipe import ListPipe
from qbtools.runs.merging import Merging


def run(call: Invocation, files: Sequence[str]) -> None:
    """Writes the archive. It is complete if it returns."""
    sealing = _sealing(call)
    save.check_options(sealing)
    with ExitStack() as cleanup:
        typed = chainlinks.typed_passphrase(call)
        chainlinks.allow_descriptors(files)
        archives = chainlinks.read(call, files, chainlinks.opened(files, cleanup), typed)
        if archives[-1].failed:
            raise tocommand.incomplete(archives[-1].failed)
        read = {**stagewords.files(call), **chainlinks.kept(archives)}
        beside = cleanup.enter_context(save.beside(sealing, read))
        secret = _secret(call, sealing, typed)
        backup_id = save.new_id()
        inputs = cleanup.enter_context(stagewords.Inputs(sealing, secret=secret))
        call.say(f"backup ID {backup_id}")
        pipes, events = [ListPipe() for _ in archives], [EventPipe() for _ in archives]
        found = chainstages.side_by_side(call, archives, pipes, events, cleanup)
        receipt_words, receipt_pipe = beside.descriptors()
        words = [*inputs.words, *receipt_words, f"--compression={call.options['--compress']}", "--await-end"]
        found.groups["seal"] = [*words, f"--backup-id={backup_id}"]
        if call.options["--output"] is not None:
            found.groups["store"] = save.store_words(call, call.options["--output"])
        found.keep.extend([*inputs.keep, *receipt_pipe])
        links = [one.link for one in archives]
        Merging(found.wiring(call, "merge"), links, Streams(links, found.fifos), call.warn).run()
        beside.finish(backup_id)


def _sealing(call: Invocation) -> Invocation:
    """The same command line as one of create: --new-key-command is its --key-command, and no passphrase is given."""
    options = {**call.options, "create": True, "--key-command": call.options["--new-key-command"]}
    options |= dict.fromkeys(keyoptions.PASSPHRASE)
    given = call.given - {"--key-command", *keyoptions.PASSPHRASE}
    if options["--key-command"] is not None:
        given |= {"--key-command"}
    return Invocation(call.program, options, given)


def _secret(call: Invocation, sealing: Invocation, typed: bytes | None) -> bytes | None:
    """The passphrase that seals the new archive or wraps its passphrase; None if it needs none of the user.

    typed: the one that has opened the archives. It is used unless another one is given.
    """
    if keyoptions.makes_passphrase(sealing) and not call.options["--wrap-passphrase"]:
        return None
    if typed is None or any(call.options[option] is not None for option in mergeoptions.PASSPHRASE):
        return passphrase.obtain(call.options, {}, sealing=True, warn=call.warn, new=True)
    passphrase.check_for_sealing(typed, call.warn)
    return typed
