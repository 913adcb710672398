"""What stands in no file of the project: traces of how it was made, and of where."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from support import ROOT

_SKIPPED = {".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "build"}


def files() -> list[Path]:
    """The files of the project: those that git knows, or, in an unpacked archive, all."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]
    return [path for path in ROOT.rglob("*") if path.is_file() and not _SKIPPED & set(path.parts)]


# Each cut in two, so that this file may be looked at as well. "session" by itself is a word of Unix.
FORBIDDEN = re.compile(
    "|".join(
        [
            r"\bcla" r"ude\b|\banth" r"ropic\b|\bcop" r"ilot\b|\bchat" r"gpt\b|\bopen" r"ai\b",
            r"\blanguage" r" model|\bai" r"[- ]assist|\bgenerated" r" by\b.*\b(ai|model)\b",
            r"\b(this|previous|last|next|earlier|developer|steering) " r"session\b",
            r"\bissue " r"#?[0-9]|\bissue" r"s show\b|\bthe" r" brief\b",
            r"(?<!\w)/wor" r"k/|/tmp/pl" r"an\b|/tmp/ar" r"ound|/tmp/v" r"/|/roo" r"t/\.",
            r"\bpypi\." r"org|python" r"hosted|registry\.npm" r"js|deb\.deb" r"ian\.org",
        ]
    ),
    re.IGNORECASE,
)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_tells_how_or_where_it_was_made(path: Path) -> None:
    text = path.read_bytes().decode("utf-8", "replace")
    assert [match[0] for match in FORBIDDEN.finditer(text)] == []


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_left_to_be_done(path: Path) -> None:
    text = path.read_bytes().decode("utf-8", "replace")
    assert re.findall(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b", text) == []


def test_the_words_would_be_found() -> None:
    for text in ("see issue #12", "in this session", "Claude", "/work/main/x", "pypi.org/simple"):
        assert FORBIDDEN.search(text), text
    for text in ("a session of its own", "issue a warning", "the work is done", "setsid makes a new session"):
        assert not FORBIDDEN.search(text), text
