"""Words that no file of the project may contain: traces of how and where it was made, and riddles."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from support import ROOT

_SKIPPED = {".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "build"}


def files() -> list[Path]:
    """The files of the project: those that git knows, or all files in an unpacked archive."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        found = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        found = [path for path in ROOT.rglob("*") if not _SKIPPED & set(path.parts)]
    return sorted(path for path in found if path.is_file())


# Written so that this file can be checked, too. "session" by itself is a word of Unix.
FORBIDDEN = re.compile(
    r"\b(c[l]aude|a[n]thropic|c[o]pilot|c[h]atgpt|o[p]enai)\b|\bl[a]nguage model|\ba[i][- ]assist"
    r"|\b(this|previous|last|next|earlier|developer) [s]ession\b"
    r"|\b[i]ssue #?[0-9]|\bthe [b]rief\b"
    r"|\b[p]ypi\.org|[p]ythonhosted|registry\.[n]pmjs|deb\.[d]ebian\.org"
    rf"|(?<!\w){re.escape(str(ROOT))}/",
    re.IGNORECASE,
)


def found(words: re.Pattern[str]) -> dict[str, list[str]]:
    """The matches in each file, by its name."""
    texts = {str(path.relative_to(ROOT)): path.read_bytes().decode("utf-8", "replace") for path in files()}
    assert len(texts) > 100
    return {name: matches for name, text in texts.items() if (matches := [m[0] for m in words.finditer(text)])}


def test_no_file_tells_how_or_where_it_was_made() -> None:
    assert found(FORBIDDEN) == {}


def test_nothing_is_left_to_be_done() -> None:
    assert found(re.compile(r"\b(?:T[O]DO|F[I]XME|X[X]X)\b")) == {}


def test_the_words_would_be_found() -> None:
    for text in ("see is_sue #12", "in this ses_sion", "Cla_ude", "py_pi.org/simple"):
        assert FORBIDDEN.search(text.replace("_", "")), text
    for text in ("a session of its own", "issue a warning", "setsid makes a new session"):
        assert not FORBIDDEN.search(text), text
    assert FORBIDDEN.search(f"in {ROOT}/x")


# Phrases that are hard to read, each with a better one.
RIDDLES = {
    r"\bwhat came (is|was|must)\b": "what was read",
    r"\bis there already\b": "already exists",
    r"\bwhere to\?": "no target given",
    r"\bwhat is to be done:": "no command given",
    r"\bstands in (the|no|a) (plan|list|archive|line|column)\b": "is in",
    r"\bas (a whole|one whole) or not at all\b": "completely or not at all",
    r"\bwhoever comes next\b": "the next run",
    r"\bto be had\b": "available",
    r"\bnobody's error\b": "not an error",
    r"\bheld against\b": "compared with",
    r"\bwhat is said of\b": "the error for",
    r"\b(of|to|for) who\b": "of the program that",
    r"\banew\b": "again",
    r"\bin vain\b": "is not needed",
    r"\bas (it|they) comes?\b": "one after the other",
    r"\bnot there\b": "is missing",
    r"\bthat (is|are) there\b": "that exists",
    r"\bwho is told\b": "the program that is told",
    r"\btakes the place of\b": "replaces",
    r"\bbear(s)? (the|a|that|no) mark\b": "has a mark",
    r"\bgone wrong\b": "failed",
    r"\bone that can be\b": "say what it becomes",
    r"\bSo it is (if|with)\b": "This happens if",
    r"\b(where|if) that is no\b": "if it is not a",
    r"\b(None|True|False|0|[Ee]mpty|Failed|Refused|Damaged|Truncated|\w+Error) where\b": "if",
}
# Files in which these phrases do not occur.
PLAIN = [
    *(ROOT / "qbtools").glob("*.py"),
    *(
        path
        for room in ("formats", "keys", "volumes", "domains", "series", "hosts", "runs")
        for path in (ROOT / "qbtools" / room).rglob("*.py")
    ),
    *(
        path
        for room in ("archive", "backup", "machines", "pipe")
        for path in (ROOT / "qbtools/commands" / room).rglob("*.py")
    ),
    *(ROOT / "qbtools/commands").glob("*.py"),
    *(ROOT / "man").iterdir(),
    ROOT / "README.md",
]


def test_texts_are_plain() -> None:
    riddles = {}
    for path in PLAIN:
        text = " ".join(re.sub(r"\n\s*(#\s*)?", "\n", path.read_text()).split())
        found = [f"{match[0]}: {plain}" for riddle, plain in RIDDLES.items() for match in re.finditer(riddle, text)]
        if found:
            riddles[str(path.relative_to(ROOT))] = found
    assert riddles == {}


def test_the_riddles_would_be_found() -> None:
    for text in (
        "who is told ends",
        "the file is there already",
        "Failed where it is missing",
        "the lock is not to be had",
    ):
        assert any(re.search(riddle, text) for riddle in RIDDLES), text
