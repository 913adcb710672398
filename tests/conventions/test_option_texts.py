"""An option has the same meaning everywhere, because its text is in one place."""

from __future__ import annotations

import re

import pytest
from product import IN_PYTHON, PROGRAMS, doc, module_of, option_texts, options
from support import ROOT

from qbtools.commands import cli
from qbtools.commands import options as shared

SHARED = {name: text for name, text in vars(shared).items() if name.isupper() and isinstance(text, str)}
SHARED_LINES = {line for text in SHARED.values() for line in text.splitlines()}

# bash cannot take its texts from options.py, so that they are the same is checked here; these say more, or less.
OF_ITS_OWN = {"--quiet", "--key-command", "--json", "--expect-id", "--overwrite", "--shrink"}


def shared_texts(option: str) -> list[str]:
    """The texts of an option in options.py: --key-command has one for sealing and one for opening."""
    return [
        block.strip()
        for text in SHARED.values()
        for block in re.split(r"\n(?=  -)", text)
        if re.search(rf"^  (-\S( \S+)? )?{option}(?![\w-])", block)
    ]


def test_no_option_text_occurs_in_two_programs_by_itself() -> None:
    first: dict[str, str] = {}
    for program in IN_PYTHON:
        for option, text in option_texts(program).items():
            if text in first:
                assert text in shared_texts(option), f"{option} of {first[text]} and {program} belongs in options.py"
            first.setdefault(text, program)


@pytest.mark.parametrize("program", IN_PYTHON)
def test_no_program_retypes_a_text_of_options(program: str) -> None:
    source = (ROOT / f"qbtools/commands/{module_of(program).replace('.', '/')}.py").read_text()
    assert [line for line in source.splitlines() if line in SHARED_LINES] == []


@pytest.mark.parametrize("name", SHARED)
def test_texts_in_options_are_shared(name: str) -> None:
    first = " ".join(SHARED[name].splitlines()[0].split())
    users = [program for program in PROGRAMS if first in " ".join(doc(program).split())]
    assert len(users) >= 2, f"options.{name} is used by {users}"


def test_qb_backup_says_the_same_of_the_options_that_it_hands_on() -> None:
    checked = 0
    for option, text in option_texts("qb-backup").items():
        expected = [re.sub(r"\s+", " ", one) for one in shared_texts(option)]
        if not expected or option in OF_ITS_OWN:
            continue
        assert re.sub(r"\s+", " ", text) in expected
        checked += 1
    assert checked >= 10


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_takes_the_options_that_all_have(program: str) -> None:
    assert {"-h", "--help", "--version", "-q", "--quiet", "-v", "--verbose"} <= options(program).keys()


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_option_takes_the_passphrase_itself(program: str) -> None:
    named = {name.replace("--new-", "--") for name in options(program) if "pass" in name}
    assert named <= {"--passphrase-file", "--passphrase-fd", "--passphrase-command", "--wrap-passphrase"}


def test_an_option_has_one_form() -> None:
    """The same name takes a value in all programs or in none, and has the same short name."""
    # What is asked of a volume is its size, what is said of standard input is one.
    exempt = {"--size"}
    seen: dict[str, int] = {}
    for program in PROGRAMS:
        for name, values in options(program).items():
            if name not in exempt:
                assert seen.setdefault(name, values) == values, f"{program} {name}"


SHORT = {"-n": "--dry-run", "-y": "--yes"}
WORDS = {
    "qb-backup": {"--dry-run": ["create", "--host=x"], "--yes": ["restore", "--host=x"]},
    "qb-host": {"--dry-run": ["apply", "--host=x", "--metadata=x", "plan"]},
    "qb-series": {"--dry-run": ["forget", "--keep-last=1", "x"]},
}
"""A call of each program that has one of these, without it."""


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_short_name_is_the_same_as_the_long_one(program: str) -> None:
    for short, long in SHORT.items():
        assert (short in options(program)) == (long in options(program))
        if long in options(program):
            first, *others = WORDS[program][long]
            found, expected = (cli._parse(program, doc(program), [first, name, *others]) for name in (short, long))
            assert (found.options, found.given) == (expected.options, expected.given)
            assert found.options[long] is True


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_fits_a_terminal(program: str) -> None:
    assert all(len(line) <= 88 for line in doc(program).splitlines())
    assert doc(program).startswith("Usage:") and doc(program).endswith("\n")
