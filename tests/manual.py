"""The shell commands that the manual shows, taken out of it, so that tests run what users copy."""

from __future__ import annotations

import re

from support import ROOT

_ESCAPES = {"\\e": "\\", "\\-": "-", "\\(aq": "'", "\\(ha": "^", "\\(ti": "~", "\\(ga": "`", "\\&": ""}


def examples(page: str) -> dict[str, str]:
    """The marked examples of man/PAGE: what stands in the literal block behind a line `.\\" example: NAME`."""
    text = (ROOT / "man" / page).read_text()
    blocks = re.findall(r'^\.\\" example: (\S+)\n\.Bd -literal[^\n]*\n(.*?)^\.Ed$', text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == len(re.findall(r'^\.\\" example:', text, re.MULTILINE)), "a marker without a literal block"
    assert len({name for name, _ in blocks}) == len(blocks), "a marker occurs twice"
    return {name: _plain(block) for name, block in blocks}


def _plain(block: str) -> str:
    """mdoc text of a literal block as it is shown."""
    return re.sub(r"\\(\(..|.)", lambda match: _ESCAPES[match[0]], block)
