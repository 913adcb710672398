"""qb-backup list, verify and restore."""

from __future__ import annotations

from qbtools.commands.backup import stagewords
from qbtools.commands.backup.optionrules import command_of
from qbtools.commands.cli import Invocation
from qbtools.domains import inventory, names
from qbtools.domains.qubesxml import Metadata
from qbtools.errors import UsageError
from qbtools.runs import checking, filling, opening


def run(call: Invocation) -> None:
    """Lists, verifies or restores; raises where not all of it went well."""
    if call.options["--host"] is not None:
        from qbtools.commands.backup import openhost  # it takes as long to load as all the rest

        openhost.run(call)
        return
    command = command_of(call)
    if command == "list":
        listing = checking.Listing(lambda metadata: _list(call, metadata))
        opening.open_all(stagewords.opening(call), listing, call.warn)
    elif command == "verify":
        verifying = checking.Verifying(call.warn)
        opening.open_all(stagewords.opening(call, ["--verify"]), verifying, call.warn)
        verifying.finish()
    else:
        fill = filling.Filling(_where(call), call.warn)
        opening.open_all(stagewords.opening(call), fill, call.warn)
        fill.finish()


def _list(call: Invocation, metadata: Metadata) -> None:
    out = call.stdout(binary=False)
    if call.options["--json"]:
        stagewords.print_json(call, inventory.as_document(metadata))
    else:
        out.write_lines(entry.to_line() for entry in inventory.entries(metadata))


def _where(call: Invocation) -> filling.Where:
    opts = call.options
    for domain in opts["--only"]:
        if problem := names.domain_problem(domain):
            raise UsageError(f"--only: {domain}: {problem}")
    to = opts["--to"]
    for option in ("--to", "--pool"):
        if opts[option] is not None and ("\n" in opts[option] or "\t" in opts[option]):
            raise UsageError(f"{option}: the name has a tab or a newline in it")
    if to is not None and not to.startswith("/"):
        to = f"./{to}"  # so that it is taken for nothing but a path
    options = [option for option in ("--overwrite", "--shrink") if opts[option]]
    return filling.Where(to, opts["--pool"], filling.read_map(opts["--map"]), opts["--only"], options)
