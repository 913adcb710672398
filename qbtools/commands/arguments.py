"""Parses a command line according to the usage text of its program, without any package.

It knows the part of docopt's language that our usage texts use. If it finds no match, docopt decides. That is nearly
always a usage error, so the time to load docopt does not matter. The tests compare both.
"""

from __future__ import annotations

from qbtools.errors import UsageError
from qbtools.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Value = str | bool | list[str] | None


class Option(NamedTuple):
    """An option of a program. key: its name in the result, which is the long name if it has one."""

    key: str
    takes: bool
    default: str | None


def options_of(doc: str) -> dict[str, Option]:
    """All options in the lines of doc, by each of their names."""
    found: dict[str, Option] = {}
    blocks: list[str] = []
    for line in doc.splitlines():
        if line.lstrip().startswith("-"):
            blocks.append(line.strip())
        elif blocks:
            blocks[-1] += " " + line.strip() if line.strip() else "  "
    for block in blocks:
        spelled, _, text = block.partition("  ")
        words = spelled.replace(",", " ").replace("=", " ").split()
        names = [word for word in words if word.startswith("-")]
        key = next((name for name in names if name.startswith("--")), names[0])
        default = text.partition("[default: ")[2].partition("]")[0] if "[default: " in text else None
        for name in names:
            found[name] = Option(key, len(names) < len(words), default)
    return found


class Given(NamedTuple):
    """The words and the options of a command line. They have not been compared with the usage lines yet."""

    words: list[str]
    options: list[tuple[str, str | bool]]


def spelled(known: dict[str, Option], arguments: Sequence[str], hint: str) -> Given:
    """Separates words and options. UsageError for an option that is unknown, abbreviated, or without its value."""
    given = Given([], [])
    words = iter(arguments)
    for word in words:
        if word == "--":
            given.words.extend(words)
        elif word.startswith("--"):
            name, equals, text = word.partition("=")
            if name not in known:
                raise UsageError(f"unknown option: {name}", hint)
            if equals and not known[name].takes:
                raise UsageError(f"{name} takes no value", hint)
            value = text if equals else _value(name, known[name], words, hint)
            given.options.append((known[name].key, value))
        elif word.startswith("-") and word != "-":
            _short(known, word, words, given, hint)
        else:
            given.words.append(word)
    return given


def _short(known: dict[str, Option], word: str, words: Iterator[str], given: Given, hint: str) -> None:
    """Adds the options of a cluster like -qv or -j4."""
    for at in range(1, len(word)):
        name = "-" + word[at]
        if name not in known:
            raise UsageError(f"unknown option: {name}", hint)
        option = known[name]
        if option.takes and at + 1 < len(word):
            given.options.append((option.key, word[at + 1 :]))
            return
        given.options.append((option.key, _value(name, option, words, hint)))


def _value(name: str, option: Option, words: Iterator[str], hint: str) -> str | bool:
    if not option.takes:
        return True
    value = next(words, None)
    if value is None:
        raise UsageError(f"{name} needs a value", hint)
    return value


class Node(NamedTuple):
    """A part of a usage line. kind: seq, either, optional, repeat, word, command, option or options."""

    kind: str
    name: str = ""
    parts: tuple[Node, ...] = ()


def usage_of(doc: str, known: dict[str, Option]) -> Node:
    """The usage lines of doc, from `Usage:` to the first empty line."""
    text = doc[doc.index("Usage:") + 6 :].partition("\n\n")[0]
    program = text.split()[0]
    lines = []
    for line in text.split(f"{program} ")[1:]:
        for sign in ("...", "[", "]", "(", ")", "|"):
            line = line.replace(sign, f" {sign} ")
        lines.append(_either(line.split(), known))
    return Node("either", parts=tuple(lines))


def _either(tokens: list[str], known: dict[str, Option]) -> Node:
    """Parses tokens up to a closing bracket or the end, and removes them."""
    found: list[list[Node]] = [[]]
    while tokens and tokens[0] not in ("]", ")"):
        token = tokens.pop(0)
        if token == "|":
            found.append([])
        elif token == "...":
            found[-1].append(Node("repeat", parts=(found[-1].pop(),)))
        elif token in ("[", "("):
            inner = _either(tokens, known)
            tokens.pop(0)
            found[-1].append(Node("optional", parts=(inner,)) if token == "[" else inner)
        else:
            found[-1].extend(_leaf(token, tokens, known))
    sequences = tuple(Node("seq", parts=tuple(parts)) for parts in found)
    return sequences[0] if len(sequences) == 1 else Node("either", parts=sequences)


def _leaf(token: str, tokens: list[str], known: dict[str, Option]) -> list[Node]:
    if token == "options":
        return [Node("options")]
    if not token.startswith("-"):
        return [Node("word" if token.isupper() else "command", token)]
    names = [token] if token.startswith("--") else [f"-{letter}" for letter in token[1:]]
    if known[names[-1]].takes:
        tokens.pop(0)
    return [Node("option", known[name].key) for name in names]


class _State(NamedTuple):
    at: int
    """The number of matched words."""
    left: tuple[str, ...]
    """Keys of options that are not matched yet."""
    took: tuple[tuple[str, str], ...]
    """Names of words and commands, each with the word that was given."""
    lacks: tuple[str, ...] | None = None
    """Names of words and options that the usage lines require and that were not given; None: they must be given."""


def _match(node: Node, state: _State, words: Sequence[str], named: frozenset[str]) -> Iterator[_State]:
    """All states after node, from state. named: options in the usage lines; `options` does not match these."""
    if node.kind == "seq":
        yield from _match_all(node.parts, state, words, named)
    elif node.kind == "either":
        for part in node.parts:
            yield from _match(part, state, words, named)
    elif node.kind == "optional":
        # As in docopt, each part of an optional sequence is optional by itself.
        (part,) = node.parts
        if part.kind == "seq" and len(part.parts) > 1:
            each = tuple(Node("optional", parts=(one,)) for one in part.parts)
            yield from _match_all(each, state, words, named)
            return
        for after in _match(part, state._replace(lacks=None), words, named):
            yield after._replace(lacks=state.lacks)
        yield state
    elif node.kind == "repeat":
        for after in _match(node.parts[0], state, words, named):
            if (after.at, after.left) != (state.at, state.left):
                yield from _match(node, after, words, named)
            yield after
    else:
        yield from _match_leaf(node, state, words, named)


def _match_leaf(node: Node, state: _State, words: Sequence[str], named: frozenset[str]) -> Iterator[_State]:
    if node.kind == "options":
        yield state._replace(left=tuple(key for key in state.left if key in named))
    elif node.kind == "option":
        if node.name in state.left:
            at = state.left.index(node.name)
            yield state._replace(left=state.left[:at] + state.left[at + 1 :])
        elif state.lacks is not None and node.name not in ("--help", "--version"):
            yield state._replace(lacks=(*state.lacks, node.name))
    elif state.at < len(words) and (node.kind == "word" or words[state.at] == node.name):
        yield state._replace(at=state.at + 1, took=(*state.took, (node.name, words[state.at])))
    elif state.lacks is not None and state.at == len(words) and node.kind == "word":
        yield state._replace(lacks=(*state.lacks, node.name))


def _match_all(parts: Sequence[Node], state: _State, words: Sequence[str], named: frozenset[str]) -> Iterator[_State]:
    if not parts:
        yield state
        return
    for after in _match(parts[0], state, words, named):
        yield from _match_all(parts[1:], after, words, named)


def _leaves(node: Node, repeated: bool = False) -> Iterator[tuple[Node, bool]]:
    """Each leaf, and whether it can be repeated."""
    if node.parts:
        for part in node.parts:
            yield from _leaves(part, repeated or node.kind == "repeat")
    elif node.kind != "options":
        yield node, repeated


def match(doc: str, known: dict[str, Option], given: Given) -> dict[str, Value] | None:
    """The same result as docopt for these words, or None if no usage line matches by the rules known here."""
    usage = usage_of(doc, known)
    leaves = list(_leaves(usage))
    many = {leaf.name for leaf, repeated in leaves if repeated}
    named = frozenset(leaf.name for leaf, _repeated in leaves if leaf.kind == "option")
    keys = [key for key, _value in given.options]
    if any(keys.count(key) > 1 and key not in many for key in keys):
        return None
    start = _State(0, tuple(keys), ())
    ends = _match(usage, start, given.words, named)
    whole = next((end for end in ends if end.at == len(given.words) and not end.left), None)
    if whole is None:
        return None
    result: dict[str, Value] = {}
    any_option = "[options]" in doc.partition("\n\n")[0]
    for option in known.values():
        if any_option or option.key in named:
            result[option.key] = [] if option.key in many else option.default if option.takes else False
    for leaf, _repeated in leaves:
        if leaf.kind != "option":
            result[leaf.name] = [] if leaf.name in many else None if leaf.kind == "word" else False
    kinds = {leaf.name: leaf.kind for leaf, _repeated in leaves}
    for name, text in (*whole.took, *given.options):
        before = result[name]
        if isinstance(before, list):
            before.append(str(text))
        else:
            result[name] = True if kinds.get(name) == "command" else text
    return result


def lacking(doc: str, known: dict[str, Option], given: Given) -> tuple[int, tuple[str, ...]]:
    """The number of the usage line that lacks least, and the words and options that it lacks, in order.

    It lacks nothing if no line would match with more of them.
    """
    start = _State(0, tuple(key for key, _value in given.options), (), ())
    usage = usage_of(doc, known)
    named = frozenset(leaf.name for leaf, _repeated in _leaves(usage) if leaf.kind == "option")
    found: list[tuple[int, tuple[str, ...]]] = []
    for number, line in enumerate(usage.parts):
        for end in _match(line, start, given.words, named):
            if end.at == len(given.words) and not end.left and end.lacks is not None:
                found.append((number, end.lacks))
    return min(found, key=lambda one: len(one[1]), default=(0, ()))
