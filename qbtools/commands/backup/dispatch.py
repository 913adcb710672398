"""Starts the run that a command line of qb-backup asks for."""

from __future__ import annotations

import os

from qbtools.commands import taken
from qbtools.commands.backup import optionrules
from qbtools.commands.cli import Invocation
from qbtools.commands.ending import Terminated
from qbtools.errors import UsageError
from qbtools.runs.verdict import Ended


def run(call: Invocation, doc: str) -> None:
    """Runs create, list, verify, restore or merge, or shows help from doc."""
    if call.options["help"]:
        _help(call, doc)
        return
    optionrules.check(call)
    try:
        if call.options["create"] and call.options["--host"] is not None:
            from qbtools.commands.backup import savehost

            savehost.run(call)
        elif call.options["create"] and call.options["--series"] is not None:
            from qbtools.commands.backup import saveseries

            saveseries.run(call)
        elif call.options["create"]:
            from qbtools.commands.backup import save

            save.run(call)
        elif call.options["merge"]:
            from qbtools.commands.backup import merge

            merge.run(call, call.options["FILE"])
        else:
            files = call.options["FILE"]
            call.options["FILE"] = files[0] if files else None
            if call.options["--at"] is not None and len(files) < 2:
                raise UsageError("--at needs several archives", f"see {call.program} --help")
            if call.options["FILE"] in (None, "-"):
                taken.refuse(call.options, os.environ)  # before any of its files is read
            if len(files) > 1:
                from qbtools.commands.backup import openchain

                openchain.run(call, files)
            else:
                from qbtools.commands.backup import open

                open.run(call)
    except Ended as ended:
        raise Terminated(ended.number) from None


def _help(call: Invocation, doc: str) -> None:
    from qbtools.commands.backup import commandhelp

    command = call.options["COMMAND"]
    if command not in (None, *optionrules.COMMANDS):
        commands = ", ".join(optionrules.COMMANDS)
        raise UsageError(f"unknown command: {command}; the commands are {commands}", f"see {call.program} --help")
    call.stdout(binary=False).write(commandhelp.of(doc, command or "").encode())
