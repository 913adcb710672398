"""The commands that qbtools(7) shows to users are the commands that the tests run."""

from __future__ import annotations

import re

import pytest
from manual import examples
from support import ROOT, need, run

SOURCE = (ROOT / "man/qbtools.7").read_text()


@pytest.mark.parametrize("device", ["ascii", "utf8"])
def test_examples_are_shown_as_they_are_run(device: str) -> None:
    need("mandoc")
    shown = run("mandoc", "-T", device, "-O", "width=200", ROOT / "man/qbtools.7").stdout.decode()
    lines = {line.strip() for line in re.sub(".\b", "", shown).splitlines()}
    for name, text in examples("qbtools.7").items():
        for line in text.splitlines():
            assert line.strip() in lines, name


def test_what_man_may_turn_into_typography_is_escaped() -> None:
    """groff shows a bare - ' ^ ~ ` of a man page as another character on some systems."""
    for block in re.findall(r"^\.Bd -literal[^\n]*\n(.*?)^\.Ed$", SOURCE, re.MULTILINE | re.DOTALL):
        assert not re.search(r"['^~`-]", re.sub(r"\\(\(..|.)", "", block)), block


def test_every_recipe_is_run() -> None:
    """Only the picture of all stages, and a pipe that shows a mistake, have no mark."""
    marked = examples("qbtools.7")
    assert len(re.findall(r"^\.Bd -literal", SOURCE, re.MULTILINE)) == len(marked) + 2
    texts = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in marked if f'"{name}"' not in texts] == []


def test_an_archive_gets_its_name_from_qb_store() -> None:
    """After a redirection, an archive that broke has the name of a complete one."""
    marked = examples("qbtools.7").items()
    assert [name for name, text in marked if re.search(r"> *[\w./-]+\.qb\b", text)] == []
