"""What stands in no file of the project: traces of how it was made, and of where."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from support import ROOT

_SKIPPED = {".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "build"}


def files() -> list[Path]:
    """The files of the project: those that git knows, or, in an unpacked archive, all."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        found = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        found = [path for path in ROOT.rglob("*") if not _SKIPPED & set(path.parts)]
    return sorted(path for path in found if path.is_file())


# Written so that this file may be looked at, too. "session" by itself is a word of Unix.
FORBIDDEN = re.compile(
    r"\b(c[l]aude|a[n]thropic|c[o]pilot|c[h]atgpt|o[p]enai)\b|\bl[a]nguage model|\ba[i][- ]assist"
    r"|\b(this|previous|last|next|earlier|developer) [s]ession\b"
    r"|\b[i]ssue #?[0-9]|\bthe [b]rief\b"
    r"|\b[p]ypi\.org|[p]ythonhosted|registry\.[n]pmjs|deb\.[d]ebian\.org"
    rf"|(?<!\w){re.escape(str(ROOT))}/",
    re.IGNORECASE,
)


def found(words: re.Pattern[str]) -> dict[str, list[str]]:
    """What stands where: by file."""
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
