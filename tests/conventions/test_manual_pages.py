"""Manual pages and programs agree: options, arguments, statuses, environment; everything in examples exists."""

from __future__ import annotations

import re
from pathlib import Path

import docopt
import pytest
from product import PROGRAMS, doc, options
from support import BIN, ROOT, need, run

MAN = ROOT / "man"
PAGES = sorted(MAN.iterdir())
ORDER = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "ENVIRONMENT", "EXIT STATUS", "EXAMPLES", "SEE ALSO"]


def sections(program: str) -> dict[str, str]:
    """The text of each section of a program's page."""
    parts = re.split(r"^\.Sh (.+)\n", (MAN / f"{program}.1").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def macros(text: str, name: str) -> list[str]:
    """The arguments of each line of a macro."""
    return re.findall(rf"^\.{name}(?: (.*))?$", text, re.MULTILINE)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_sections_are_there_in_their_order(program: str) -> None:
    text = (MAN / f"{program}.1").read_text()
    assert text.startswith(".Dd ") and f"\n.Dt {program.upper()} 1\n.Os qbtools\n" in text
    assert list(sections(program)) == ORDER
    assert sections(program)["NAME"].startswith(f".Nm {program}\n.Nd ")


def item_options(item: str) -> dict[str, int]:
    """The option names of `.It Fl j Ar N , Fl -jobs Ar N`, each with the number of its values."""
    found = {}
    for alternative in item.split(" , "):
        match = re.fullmatch(r"Fl (-?\S+)(| Ar .+)", alternative)
        assert match, f"not an option: .It {item}"
        found[f"-{match[1]}"] = 1 if match[2] else 0
    return found


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_options_of_the_page_are_those_of_the_program(program: str) -> None:
    described: dict[str, int] = {}
    for item in macros(sections(program)["OPTIONS"], "It"):
        if item.startswith("Fl "):
            for name, values in item_options(item).items():
                assert name not in described, f"{name} is described twice"
                described[name] = values
    assert described == options(program)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_synopsis_names_what_the_usage_names(program: str) -> None:
    synopsis = sections(program)["SYNOPSIS"]
    # Every option may hide behind `options`; one that is shown must be one, and an argument is an argument.
    for name in re.findall(r"\bFl (\S+)", synopsis):
        shown = {f"-{name}"} if name.startswith("-") else {f"-{letter}" for letter in name}  # Fl qv
        assert shown <= options(program).keys()
    bare = re.sub(r"\bFl .*", "", synopsis)
    arguments = set(re.findall(r"\bAr (\w+)", bare)) - {"options"}
    commands = set(re.findall(r"\bCm (\w+)", bare))
    pattern = docopt.parse_pattern(
        docopt.formal_usage(docopt.printable_usage(doc(program))), docopt.parse_defaults(doc(program))
    )
    assert arguments == {leaf.name for leaf in pattern.flat(docopt.Argument) if type(leaf) is docopt.Argument}
    assert commands == {leaf.name for leaf in pattern.flat(docopt.Command)}


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_statuses_are_those_of_the_contract(program: str) -> None:
    items = macros(sections(program)["EXIT STATUS"], "It")
    assert items == sorted(items, key=lambda item: int(item.split()[0])), "in order"
    assert {"0", "1", "2", "130 , 141 , 143"} <= set(items)
    assert set(items) <= {"0", "1", "2", "3", "4", "5", "130 , 141 , 143"}
    opens = {"--passphrase-fd", "--expect-id"} <= options(program).keys()
    assert ("3" in items) == opens, "who opens an archive can be given a wrong passphrase"


def documented(pattern: str) -> set[str]:
    return {name for page in PAGES for name in re.findall(pattern, page.read_text())}


def test_the_environment_that_is_read_is_described() -> None:
    sources = [*(ROOT / "qbtools").rglob("*.py"), BIN / "qb-backup"]
    text = "".join(path.read_text() for path in sources)
    read = set(re.findall(r"environ(?:\.get\(|ment\.get\(|ment\[|\[)\"([A-Z_]+)\"", text))
    assert {"QB_PASSPHRASE_FILE", "QB_PASSPHRASE_COMMAND", "CREDENTIALS_DIRECTORY", "QB_DEBUG"} <= read
    # PATH and the like are everybody's.
    assert {name for name in read if name.startswith("QB_")} <= documented(r"\bQB_[A-Z_]+")


@pytest.mark.parametrize("program", PROGRAMS)
def test_who_takes_a_passphrase_describes_its_sources(program: str) -> None:
    named = set(re.findall(r"[A-Z]+_[A-Z_]+", sections(program)["ENVIRONMENT"]))
    sources = {"QB_PASSPHRASE_FILE", "QB_PASSPHRASE_COMMAND", "CREDENTIALS_DIRECTORY"}
    assert (sources <= named) == ("--passphrase-file" in options(program))
    assert "QB_DEBUG" in named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mandoc_has_nothing_to_say(page: Path) -> None:
    need("mandoc")
    done = run("mandoc", "-T", "lint", "-W", "warning", page)
    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_that_are_referred_to_exist(page: Path) -> None:
    names = {path.name for path in PAGES}
    for name, section in re.findall(r"^\.Xr (\S+) (\S+)", page.read_text(), re.MULTILINE):
        if name.startswith("qb"):
            assert f"{name}.{section}" in names and f"{name}.{section}" != page.name


def test_every_program_has_a_page_and_every_page_a_program() -> None:
    assert {page.name for page in PAGES} == {f"{program}.1" for program in PROGRAMS} | {
        "qb-run.1",
        "qb-format.5",
        "qb-design.7",
        "qb-host.7",
        "qbtools.7",
    }


TEXTS = [ROOT / "README.md", *PAGES, *(BIN / program for program in PROGRAMS), ROOT / "tests/demo"]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_no_text_shows_an_option_that_is_not_there(path: Path) -> None:
    text = re.sub(r"\\(.)", r"\1", path.read_text())
    text = re.sub(r" *\\?\n(?=[> ] )", " ", text)
    for program, rest in re.findall(r"\b(qb-[a-z]+)\b((?: [^\n|;&<>()`]*)?)", text):
        if program not in PROGRAMS:
            continue
        for word in re.findall(r"(?<= )--?[a-z][a-z-]*", re.sub(r"'[^']*'|\"[^\"]*\"", "''", rest)):
            # Behind a command of somebody else, or in running text, a word may be another's.
            if word.startswith("--"):
                assert word in options(program), f"{program}{rest}"


def test_the_readme_names_every_program() -> None:
    text = (ROOT / "README.md").read_text()
    assert [program for program in PROGRAMS if program not in text] == []
