"""Says what is wrong with a command line that matches no usage line."""

from __future__ import annotations

from collections.abc import Sequence

from qbtools.commands import arguments
from qbtools.commands.arguments import Given, Option
from qbtools.errors import UsageError

_WORDS = {"DIR": "directory", "ID": "ID", "URI": "URI"}
"""What the usage lines call an argument, where a message calls it otherwise than in lower case."""

_LONGEST = 120  # characters of a usage line in a hint


def explained(program: str, doc: str, known: dict[str, Option], given: Given) -> UsageError:
    """The error for words and options that match no usage line of doc, by the most likely mistake in them."""
    hint = f"see {program} --help"
    if problem := _command_problem(doc, known, given):
        return UsageError(problem, hint)
    number, lacks = arguments.lacking(doc, known, given)
    spare = _too_much(doc, known, given)
    if lacks and not (spare and all(one.startswith("-") for one in lacks)):
        usage = _usage_lines(program, doc)[number]
        *others, last = [f"no {_named(one)}" for one in lacks]
        needs = f"{', '.join(others)} and {last}" if others else last
        return UsageError(f"{needs} given", f"usage: {usage}" if len(usage) <= _LONGEST else hint)
    return UsageError(spare or "the arguments do not fit together", hint)


def _named(missing: str) -> str:
    return missing if missing.startswith("-") else _WORDS.get(missing, missing.lower())


def _usage_lines(program: str, doc: str) -> list[str]:
    """Each usage line of doc, on one line."""
    text = doc[doc.index("Usage:") + 6 :].partition("\n\n")[0]
    return [f"{program} {' '.join(line.split())}" for line in text.split(f"{program} ")[1:]]


def _command_problem(doc: str, known: dict[str, Option], given: Given) -> str | None:
    """The problem with the command, if the program has commands; None if there is none."""
    commands = _commands(doc, known)
    if not commands:
        return None
    listed = ", ".join(commands)
    if not given.words:
        return f"no command given: {listed}"
    return None if given.words[0] in commands else f"unknown command: {given.words[0]}; the commands are {listed}"


def _commands(doc: str, known: dict[str, Option]) -> Sequence[str]:
    lines = arguments.usage_of(doc, known).parts
    heads = [line.parts[0] for line in lines if line.kind == "seq" and line.parts and line.parts[0].kind == "command"]
    return list(dict.fromkeys(head.name for head in heads)) if len(heads) + 1 >= len(lines) else ()


def _too_much(doc: str, known: dict[str, Option], given: Given) -> str | None:
    """The problem with the last word or with one option, if all would match without it."""
    *others, last = given.words or [""]
    if last and arguments.match(doc, known, given._replace(words=others)) is not None:
        commands = _commands(doc, known)
        alone = all(word in commands for word in others) and "on standard input" in doc
        return f"unexpected argument: {last}" + ("; the input comes on standard input" if alone else "")
    for at, (key, _value) in enumerate(given.options):
        rest = given._replace(options=given.options[:at] + given.options[at + 1 :])
        if arguments.match(doc, known, rest) is not None:
            twice = any(other == key for other, _value in rest.options)
            return f"{key} is given twice" if twice else f"{key} does not go with the other arguments"
    return None
