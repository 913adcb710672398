"""Every option of qb-backup with every command: it is refused if it has no effect."""

from __future__ import annotations

import functools

import pytest

from qbtools.commands import cli
from qbtools.commands.arguments import options_of
from qbtools.commands.backup import optionrules
from qbtools.commands.backup.qb_backup import DOC
from qbtools.errors import UsageError

OPTIONS = sorted({option.key for option in options_of(DOC).values()} - {"--help", "--version"})
VALUES = {"--map": "a:root=x", "--rename": "a=b", "--full-after": "3"}
EVERYWHERE = {
    *("--passphrase-file", "--passphrase-fd", "--passphrase-command", "--jobs", "--progress", "--quiet", "--verbose"),
    "--key-command",
}
OPENING = {
    *("--expect-id", "--expect", "--require-version", "--max-memory", "--max-work", "--max-chunk", "--identity"),
    *("--signers", "--signer", "--signers-time", "--any-writer"),
}
SAVING = {
    *("--output", "--compress", "--chunk-size", "--logn", "--id-file", "--state", "--cow", "--opaque"),
    *("--recipient", "--recipients-file", "--wrap-passphrase", "--sign", "--sign-command", "--receipt"),
}
SERIES = {"--series", "--full", "--differential", "--full-after", "--no-keep", "--store"}
FILLING = {"--to", "--pool", "--map", "--overwrite", "--shrink", "--skip-existing"}
CHOOSING = {"--host", "--include", "--exclude", "--dry-run", "--json"}
MERGING = {"--new-passphrase-file", "--new-passphrase-fd", "--new-passphrase-command", "--new-key-command"}
WRITING = SAVING - {"--state", "--cow", "--opaque"}
ONLY_SAVING_HOSTS = {"--strict", "--each"}
PLANNING = {
    *("--rename", "--default-template", "--netvm", "--no-rename", "--skip-broken", "--ignore-missing", "--plan"),
    *("--yes", "--keep-going", "--keep-failed", "--verify-only", "--files-to"),
}
GOOD = {
    "create": (("create", "a"), EVERYWHERE | SAVING | {"--series"}),
    "create --series": (("create", "a", "--series=x"), EVERYWHERE | SAVING | SERIES | {"--host"}),
    "create --host": (
        ("create", "--host=x", "--output=x"),
        EVERYWHERE | SAVING | CHOOSING | ONLY_SAVING_HOSTS | {"--series"},
    ),
    "create --host --series": (
        ("create", "--host=x", "--series=x", "--store=x"),
        (EVERYWHERE | SAVING | CHOOSING | SERIES | {"--strict", "--checkpoints"}) - {"--output"},
    ),
    "list": (("list",), EVERYWHERE | OPENING | {"--json", "--at"}),
    "verify": (("verify",), EVERYWHERE | OPENING | {"--at"}),
    "restore": (("restore", "--to=x"), EVERYWHERE | OPENING | FILLING | {"--only", "--at"}),
    "merge": (("merge", "a"), EVERYWHERE | OPENING | WRITING | MERGING | {"--at"}),
    "restore --host=libvirt:": (
        ("restore", "--host=libvirt:"),
        EVERYWHERE | OPENING | PLANNING | CHOOSING | {"--only", "--at", "--keep-macs"},
    ),
    "restore --host": (("restore", "--host=x"), EVERYWHERE | OPENING | PLANNING | CHOOSING | {"--only", "--at"}),
}


def check(*words: str) -> None:
    optionrules.check(cli._parse("qb-backup", DOC, list(words)))


@functools.cache
def spelled(option: str) -> str:
    takes = next(one.takes for one in options_of(DOC).values() if one.key == option)
    return f"{option}={VALUES.get(option, 'x')}" if takes else option


def test_all_options_are_known_here() -> None:
    known = (
        EVERYWHERE
        | SAVING
        | OPENING
        | FILLING
        | CHOOSING
        | PLANNING
        | ONLY_SAVING_HOSTS
        | SERIES
        | MERGING
        | {"--only", "--at", "--keep-macs", "--checkpoints"}
    )
    assert set(OPTIONS) == known


@pytest.mark.parametrize("command", GOOD)
def test_each_option_with_a_command(command: str) -> None:
    words, good = GOOD[command]
    for option in OPTIONS:
        given = [word for word in words if word.partition("=")[0] != option]
        if option == "--pool":
            given = [word for word in given if not word.startswith("--to=")]
        if option == "--host" and command in ("create", "restore"):
            continue  # that is the other command
        if option in good:
            check(*given, spelled(option))
        else:
            with pytest.raises(UsageError, match=option):
                check(*given, spelled(option))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("create",), "no volume given"),
        (("create", "--host=x", "--json"), "--json needs --output"),
        (("create", "--host=x", "--each"), "--each needs --output"),
        (("create", "--host=x", "--each", "--output=y", "--id-file=z"), "--id-file does not go with --each"),
        (("restore",), "no target given"),
        (("restore", "--to=x", "--pool=y"), "exclude each other"),
        (("restore", "--host=x", "--plan=y", "--include=z"), "do not go with --plan"),
        (("create", "a", "--series=x", "--checkpoints"), "--checkpoints needs --host"),
        (("create", "--host=x", "--checkpoints"), "--checkpoints needs --series"),
        (("restore", "--host=dir:x", "--keep-macs"), "--keep-macs needs --host libvirt:URI"),
        (("restore", "--host=x", "--plan=y", "--only=z"), "do not go with --plan"),
        (("restore", "--to=x", "--overwrite", "--skip-existing"), "exclude each other"),
        (("restore", "--to="), "--to: the name is empty"),
        (("create", "a", "--output="), "--output: the name is empty"),
        (("create", "a", "--id-file="), "--id-file: the name is empty"),
        (("create", "a", "--receipt="), "--receipt: the name is empty"),
        (("verify", "--expect="), "--expect: the name is empty"),
        (("create", "--host="), "--host: the name is empty"),
        (("create", "a", "--passphrase-file="), "--passphrase-file: the name is empty"),
        (("create", "a", "-R", "x", "-R", ""), "--recipients-file: the name is empty"),
        (("list", "-i", "x", "-i", ""), "--identity: the name is empty"),
    ],
)
def test_options_among_each_other(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check(*words)


def test_a_dry_run_needs_no_output() -> None:
    check("create", "--host=x", "--json", "--dry-run")
    check("restore", "--map=a:root=x")
