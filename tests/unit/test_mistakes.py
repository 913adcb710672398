"""What a command line lacks is said, with the usage line that it lacks it for."""

from __future__ import annotations

import pytest
from product import doc

from qbtools.commands import arguments, mistakes

LONG = "see --help"


@pytest.mark.parametrize(
    ("command", "message", "hint"),
    [
        ("qb-volread --size", "no volume given", "[options] [--raw | --size | --since SPEC --base INDEX] VOLUME"),
        ("qb-volwrite -qv", "no target given", "[options] TARGET"),
        ("qb-host-dir here", "no verb given", "[options] DIR VERB [DOMAIN [MARK]]"),
        ("qb-tree --verify", "no name given", "[options] --verify NAME"),
        ("qb-tree path", "no name given", "[options] [--extract] PATH NAME"),
        ("qb-tarextract --whole", "no name given", "[options] --whole NAME"),
        ("qb-tarextract --volumes here", "no route given", LONG),
        ("qb-delta --confirm index", "no records given", "[options] --confirm INDEX RECORDS"),
        ("qb-series confirm", "no directory and no ID given", "confirm [options] DIR ID"),
        (
            "qb-plan --check plan",
            "no --metadata and no --host given",
            "[options] --check PLAN --metadata XML --host HOST",
        ),
        (
            "qb-host apply",
            "no --host, no --metadata and no plan given",
            "apply [-qv] [--keep-going] [--owner PID | --dry-run] (--host HOST) (--metadata XML) PLAN",
        ),
        ("qb-header write", "no --backup-id given", LONG),
        ("qb-unseal --stop --list", "--stop does not go with the other arguments", LONG),
        ("qb-volread --raw --size x", "--raw does not go with the other arguments", LONG),
        ("qb-volwrite --create --create x", "--create is given twice", LONG),
    ],
)
def test_what_is_missing(command: str, message: str, hint: str) -> None:
    program, *words = command.split()
    text = doc(program)
    known = arguments.options_of(text)
    given = arguments.spelled(known, words, "")
    assert arguments.match(text, known, given) is None
    error = mistakes.explained(program, text, known, given)
    shown = f"see {program} --help" if hint == LONG else f"usage: {program} {hint}"
    assert (error.message, error.hint) == (message, shown)
