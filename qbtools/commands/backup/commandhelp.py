"""The help of one command of qb-backup, taken from the full help text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from qbtools.commands import arguments
from qbtools.commands.backup import optionrules

_USAGE = re.compile(r"^  qb-backup (\w+)\b.*\n(?:   .*\n)*", re.MULTILINE)
_TEXT = re.compile(r"^(\w+) {2,}.*\n(?:   .*\n)*", re.MULTILINE)
_SECTION = re.compile(r"^(Options.*):\n((?:  .*\n)+)", re.MULTILINE)
_OPTION = re.compile(r"^  -.*\n(?:   .*\n)*", re.MULTILINE)
_MARGIN, _WIDTH = 28, 88


def of(doc: str, command: str) -> str:
    """Usage, description and options of a command. The complete doc if there is no such command."""
    if command not in optionrules.COMMANDS:
        return doc
    usage = "".join(match[0] for match in _USAGE.finditer(doc) if match[1] == command)
    text = next(match[0] for match in _TEXT.finditer(doc) if match[1] == command)
    options = {True: "", False: ""}
    for name, block in _blocks(doc):
        if name not in optionrules.foreign(command):
            options[optionrules.needs_host(name)] += block
    parts = [f"Usage:\n{usage}", text, f"Options:\n{options[False]}"]
    if options[True]:
        parts.append(f"Options with a host:\n{options[True]}")
    return "\n".join(parts)


def options(doc: str, command: str) -> list[str]:
    """All names of the options of a command."""
    known = arguments.options_of(doc)
    return sorted(name for name, option in known.items() if option.key not in optionrules.foreign(command))


def _blocks(doc: str) -> Iterator[tuple[str, str]]:
    """The long name and the lines of each option, in the same columns for all options."""
    for section in _SECTION.finditer(doc):
        for block in _OPTION.finditer(section[2]):
            spelled, _, text = block[0].strip().replace("\n", "  ").partition("  ")
            name = next(word for word in re.split("[ =]+", spelled) if word.startswith("--"))
            margin = " " * _MARGIN
            first = f"  {spelled}".ljust(_MARGIN) if len(spelled) + 4 <= _MARGIN else f"  {spelled}\n{margin}"
            lines = textwrap.wrap(" ".join(text.split()), _WIDTH - _MARGIN)
            yield name, first + f"\n{margin}".join(lines) + "\n"
