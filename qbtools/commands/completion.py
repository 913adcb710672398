"""Completion for bash from the help texts: `python3 -m qbtools.commands.completion DIR` writes a file per program.

zsh reads the same files with bashcompinit. setup.py installs them in the directory of bash-completion.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

from qbtools import commands
from qbtools.commands import arguments
from qbtools.commands.backup import commandhelp, optionrules

_TEMPLATE = """\
# bash completion for {program}. Made from its help text.
{function}() {{
    local word command='' words='{words}'
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case $word in
            {commands}) command=$word && break ;;
        esac
    done
    case $command in
{cases}        '') [[ ${{COMP_WORDS[COMP_CWORD]}} == -* ]] || words='{first}' ;;
        *) ;;
    esac
    if [ -z "$command" ] || [[ ${{COMP_WORDS[COMP_CWORD]}} == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}")
    fi
}}
complete -o bashdefault -o default -F {function} {program}
"""


def programs() -> Iterator[tuple[str, str]]:
    """The name and the help text of each program."""
    for room in pkgutil.iter_modules(commands.__path__):
        if room.ispkg:
            package = importlib.import_module(f"{commands.__name__}.{room.name}")
            for found in pkgutil.iter_modules(package.__path__):
                if found.name.startswith("qb_"):
                    module = importlib.import_module(f"{package.__name__}.{found.name}")
                    yield found.name.replace("_", "-"), module.DOC


def script(program: str, doc: str) -> str:
    """The completion of a program: its commands and its options, or the options of a command if they are known.

    Any other word is completed as a file name.
    """
    known = arguments.options_of(doc)
    lines = arguments.usage_of(doc, known).parts
    first = [line.parts[0] for line in lines if line.kind == "seq" and line.parts]
    names = list(dict.fromkeys(node.name for node in first if node.kind == "command"))
    cases = ""
    if program == "qb-backup":
        for name in optionrules.COMMANDS:
            cases += f"        {name}) words='{' '.join(commandhelp.options(doc, name))}' ;;\n"
        cases += f"        help) words='{' '.join(optionrules.COMMANDS)}' command='' ;;\n"
    return _TEMPLATE.format(
        program=program,
        function="_" + program.replace("-", "_"),
        words=" ".join(sorted(known)),
        commands="|".join(names) or "''",
        cases=cases,
        first=" ".join(names),
    )


def write_all(directory: str) -> None:
    """Writes the files of all programs below a directory, which must exist."""
    for program, doc in programs():
        Path(directory, program).write_text(script(program, doc), "ascii")


if __name__ == "__main__":
    write_all(sys.argv[1])
