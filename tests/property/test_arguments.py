"""A command line means what docopt says that it means, whether docopt was asked or not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from product import IN_PYTHON, doc

from qbtools.commands import arguments
from qbtools.commands.cli import _by_docopt


@pytest.mark.parametrize("program", IN_PYTHON)
def test_docopt_agrees(program: str) -> None:
    text = doc(program)
    known = arguments.options_of(text)
    usage = arguments.usage_of(text, known)
    commands = [leaf.name for leaf, _repeated in arguments._leaves(usage) if leaf.kind == "command"]
    asking = {"--help", "--version"}
    takes = {option.key: option.takes for option in known.values() if option.key not in asking}
    option = st.sampled_from(sorted(takes)).flatmap(lambda key: _option(key, takes[key]))
    word = st.sampled_from([*commands, "word", "-", "-x", "--", "--quiet"])
    # What a line cannot do without, most of it at least, is there: chance alone does not find it.
    needed = [list(_needed(line)) for line in usage.parts if not asking & {leaf.name for leaf in _needed(line)}]
    seen = 0

    @settings(max_examples=50, deadline=None)
    @given(st.sampled_from(needed), st.data())
    def check(leaves: list[arguments.Node], data: st.DataObject) -> None:
        nonlocal seen
        if leaves and data.draw(st.integers(0, 3)) == 0:
            leaves = data.draw(st.lists(st.sampled_from(leaves), max_size=len(leaves)))
        words = [leaf.name if leaf.kind == "command" else data.draw(word) for leaf in leaves if leaf.kind != "option"]
        options = [data.draw(_option(leaf.name, takes[leaf.name])) for leaf in leaves if leaf.kind == "option"]
        options = data.draw(st.permutations([*options, *data.draw(st.lists(option, max_size=3))]))
        found = arguments.Given([*words, *data.draw(st.lists(word, max_size=2))], options)
        mine = arguments.match(text, known, found)
        seen += mine is not None
        assert mine == _by_docopt(text, found)

    check()
    assert seen, "not one of them fits"


def _needed(node: arguments.Node) -> Iterator[arguments.Node]:
    """The leaves without which a part of a usage line does not fit; of alternatives, the first."""
    if node.kind in ("optional", "options"):
        return
    if not node.parts:
        yield node
    for part in node.parts[:1] if node.kind == "either" else node.parts:
        yield from _needed(part)


def _option(key: str, takes: bool) -> st.SearchStrategy[tuple[str, str | bool]]:
    return st.tuples(st.just(key), _values(takes))


def _values(takes: bool) -> st.SearchStrategy[str | bool]:
    return st.sampled_from(["7", "a=b", "-", "--x", ""]) if takes else st.just(True)


@pytest.mark.parametrize("program", IN_PYTHON)
def test_the_same_options_are_known(program: str) -> None:
    import docopt

    theirs = {
        name: (option.argcount == 1, option.value if option.argcount else None)
        for option in docopt.parse_defaults(doc(program))
        for name in (option.short, option.long)
        if name
    }
    mine = {name: (option.takes, option.default) for name, option in arguments.options_of(doc(program)).items()}
    assert mine == theirs
