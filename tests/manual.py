"""Reads the shell commands in the manual, so that tests run the commands that users copy."""

from __future__ import annotations

import re

from support import ROOT

_ESCAPES = {"\\e": "\\", "\\-": "-", "\\(aq": "'", "\\(ha": "^", "\\(ti": "~", "\\(ga": "`", "\\&": ""}


def examples(page: str) -> dict[str, str]:
    """The marked examples of man/PAGE: the literal block after a line `.\\" example: NAME`."""
    text = (ROOT / "man" / page).read_text()
    blocks = re.findall(r'^\.\\" example: (\S+)\n\.Bd -literal[^\n]*\n(.*?)^\.Ed$', text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == len(re.findall(r'^\.\\" example:', text, re.MULTILINE)), "a marker without a literal block"
    assert len({name for name, _ in blocks}) == len(blocks), "a marker occurs twice"
    return {name: _plain(block) for name, block in blocks}


def section(page: str, title: str) -> list[str]:
    """All literal blocks below a heading of man/PAGE, marked or not."""
    text = (ROOT / "man" / page).read_text().partition(f"\n.Sh {title}\n")[2].partition("\n.Sh ")[0]
    return [_plain(block) for block in re.findall(r"^\.Bd -literal[^\n]*\n(.*?)^\.Ed$", text, re.MULTILINE | re.DOTALL)]


def steps(session: str) -> list[tuple[str, str]]:
    """(command, expected output) of each `$ ` line of a session, with its continuation lines `> `."""
    found: list[tuple[str, str]] = []
    for line in session.splitlines(keepends=True):
        command, output = found[-1] if found else ("", "")
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif line.startswith("> ") and not output:
            found[-1] = (command + line[2:], "")
        else:
            found[-1] = (command, output + line)
    return found


def cheap(text: str) -> str:
    """The commands, with keys that are derived quickly."""
    return re.sub(
        r"\b(qb-seal|qb-manifest|qb-header write|qb-backup create)(?= )(?![^\n]* --logn )", r"\1 --logn 10", text
    )


def _plain(block: str) -> str:
    """mdoc text of a literal block as it is shown."""
    return re.sub(r"\\(\(..|.)", lambda match: _ESCAPES[match[0]], block)
