"""The sessions in the README are run as printed: each command must print what the README shows."""

from __future__ import annotations

import re
from pathlib import Path

from manual import examples, steps
from support import ROOT, bash, copy_of, environment, need, with_cheap_keys

README = (ROOT / "README.md").read_text()
BACKUP_ID = re.compile(r"\b[0-9]{8}T[0-9]{6}-[0-9a-f]{16}\b")
MARK = "@@readme@@"


def blocks(language: str, section: str | None = None) -> list[str]:
    """The contents of the fenced blocks of a language, in the whole README or below one heading."""
    text = README
    if section is not None:
        text = re.split(r"^## ", README.partition(f"\n## {section}\n")[2], flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_every_session_prints_what_the_readme_says(tmp_path: Path) -> None:
    need("gzip", "tar", "age", "age-keygen", "qemu-img", "qemu-nbd")
    expected = [step for session in blocks("console") for step in steps(session)]
    assert len(expected) > 10
    script = tmp_path / "script"
    # eval, so that a command that fails does not hide the ones behind it.
    script.write_text(
        "umask 022\n"
        + "".join(f"eval {quoted(command)} 2>&1 </dev/null; printf '{MARK}\\n'\n" for command, _ in expected)
    )
    programs = with_cheap_keys(copy_of(tmp_path / "copy", "bin", "qbtools")) / "bin"
    path = f"{programs}:{environment()['PATH']}"
    done = bash(f"cd {tmp_path} && exec bash {script}", timeout=300, PATH=path, TMPDIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, b"")
    printed = done.stdout.decode().split(f"{MARK}\n")
    assert printed.pop() == ""
    for (command, output), came in zip(expected, printed, strict=True):
        assert (command, BACKUP_ID.sub("ID", came)) == (command, BACKUP_ID.sub("ID", output))


def quoted(command: str) -> str:
    return "'" + command.replace("'", "'\\''") + "'"


def test_the_emergency_commands_are_those_of_the_manual() -> None:
    """Which tests/peers/test_emergency.py runs."""
    page = examples("qbtools.7")
    assert "".join(blocks("sh", "Emergency restore")) == "".join(
        page[f"emergency-{step}"] for step in ("extract", "age", "wrapped", "open", "chunks", "restore", "check")
    )


def test_the_two_commands_that_it_opens_with_are_there() -> None:
    first = blocks("sh")[0].split("\n")
    programs = [line.split()[0] for line in first if line]
    assert programs == ["tests/demo", "tests/run"]
    for program in programs:
        assert (ROOT / program).stat().st_mode & 0o111


def test_every_manual_page_that_it_names_exists() -> None:
    named = set(re.findall(r"man/[a-z-]+\.[157]", README))
    assert named
    for path in named:
        assert (ROOT / path).is_file(), path
