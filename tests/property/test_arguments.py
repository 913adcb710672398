"""A command line means what docopt says that it means, whether docopt was asked or not."""

from __future__ import annotations

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
    leaves = [leaf for leaf, _repeated in arguments._leaves(arguments.usage_of(text, known))]
    commands = [leaf.name for leaf in leaves if leaf.kind == "command"]
    asking = {"--help", "--version"}
    keys = sorted({(option.key, option.takes) for option in known.values() if option.key not in asking})
    option = st.sampled_from(keys).flatmap(lambda one: st.tuples(st.just(one[0]), _values(one[1])))
    words = st.lists(st.sampled_from([*commands, "word", "-", "-x", "--", "--quiet"]), max_size=3)
    seen = 0

    @settings(max_examples=250, deadline=None)
    @given(words, st.lists(option, max_size=4))
    def check(words: list[str], options: list[tuple[str, str | bool]]) -> None:
        nonlocal seen
        found = arguments.Given(words, options)
        mine = arguments.match(text, known, found)
        seen += mine is not None
        assert mine == _by_docopt(text, found)

    check()
    assert seen or program == "qb-host", "not one of them fits: qb-host alone needs so much that chance finds none"


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
