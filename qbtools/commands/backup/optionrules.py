"""Checks which options of qb-backup can be used together. An option without effect is an error."""

from __future__ import annotations

from qbtools.commands.archive import keyoptions, writeroptions
from qbtools.commands.backup import mergeoptions, seriesoptions
from qbtools.commands.cli import Invocation
from qbtools.errors import UsageError

COMMANDS = ("create", "list", "verify", "restore", "merge")

_KEYS = ("--recipient", "--recipients-file", "--key-command", "--wrap-passphrase")

SEALING = ("--chunk-size", "--logn", *_KEYS, "--sign", "--sign-command")
"""The options that create and merge pass to qb-seal."""

OPENING = (
    *("--expect-id", "--expect", "--require-version", "--max-memory", "--max-work", "--max-chunk"),
    *("--identity", "--key-command", *writeroptions.OPTIONS),
)
"""The options that the other commands pass to qb-unseal."""

FILES = {
    "--passphrase-file": "the passphrase",
    "--new-passphrase-file": "the new passphrase",
    "--recipients-file": "the recipients",
    "--identity": "the identity",
    "--sign": "the signing key",
    "--signers": "the list of signers",
    "--expect": "the receipt",
}
"""Options that name files which a stage reads, with the descriptions of these files."""

_BESIDE = ("--id-file", "--receipt")
_WRITING = frozenset({"--output", "--compress", *_BESIDE, *SEALING})
_CREATING = _WRITING | {"--state", "--cow", "--opaque", *seriesoptions.OPTIONS}
_MERGING = frozenset(mergeoptions.OPTIONS)
_FILLING = frozenset({"--to", "--pool", "--map", "--overwrite", "--shrink", "--skip-existing"})
_RESTORING = _FILLING | {"--only"}
_PLANNING = frozenset(
    (
        *("--rename", "--default-template", "--netvm", "--plan", "--files-to", "--no-rename", "--skip-broken"),
        *("--ignore-missing", "--yes", "--keep-going", "--keep-failed", "--verify-only", "--keep-macs"),
    )
)
_HOSTED = frozenset({"--host", "--include", "--exclude", "--dry-run"})
_SAVING_HOSTS = frozenset({"--strict", "--each", "--checkpoints"})
_FOREIGN = {
    "create": frozenset(OPENING).difference(SEALING) | _RESTORING | _PLANNING | _MERGING | {"--at"},
    "list": _CREATING.difference(OPENING) | _MERGING | _RESTORING | _PLANNING | _HOSTED | _SAVING_HOSTS,
    "verify": _CREATING.difference(OPENING) | _MERGING | _RESTORING | _PLANNING | _HOSTED | _SAVING_HOSTS | {"--json"},
    "restore": _CREATING.difference(OPENING) | _MERGING | _SAVING_HOSTS,
    "merge": _CREATING.difference(_WRITING) | _RESTORING | _PLANNING | _HOSTED | _SAVING_HOSTS | {"--json"},
}
_NAMES = ("--output", *_BESIDE, "--series", "--host", "--plan", "--files-to", "--to", "--pool", "--signer", *FILES)


def foreign(command: str) -> frozenset[str]:
    """The options that cannot be used with a command."""
    return _FOREIGN[command]


def needs_host(option: str) -> bool:
    """Whether an option can only be used with a host."""
    return option in _HOSTED | _SAVING_HOSTS | _PLANNING


def values(call: Invocation, option: str) -> list[str]:
    """The given values of an option, which may be repeatable. Empty if it takes no value."""
    found = call.options[option] if option in call.given else []
    return found if isinstance(found, list) else [] if found is True else [found]


def asks_for_passphrase(call: Invocation) -> bool:
    """Whether a passphrase of the user is needed, and no option says where it comes from."""
    opts = call.options
    if any(opts[option] is not None for option in keyoptions.PASSPHRASE):
        return False
    if opts["create"]:
        return bool(opts["--wrap-passphrase"]) or not keyoptions.makes_passphrase(call)
    return not opts["--identity"] and opts["--key-command"] is None


def command_of(call: Invocation) -> str:
    """create, list, verify, restore or merge."""
    return next(name for name in COMMANDS if call.options[name])


def check(call: Invocation) -> None:
    """UsageError for an option that cannot be used with the command or the host, for an empty name, and for options
    that exclude each other or need another one."""
    command, opts = command_of(call), call.options
    hint = f"see {call.program} --help"
    for option in call.given:
        if option in _FOREIGN[command]:
            raise UsageError(f"{option} does not go with {command}", hint)
        if option == "--expect-id" and not opts[option]:
            raise UsageError("--expect-id: the ID is empty", hint)
        if option in _NAMES and "" in values(call, option):
            raise UsageError(f"{option}: the name is empty", hint)
    hosted = opts["--host"] is not None
    for option in call.given:
        if not hosted and (needs_host(option) or (option == "--json" and command != "list")):
            raise UsageError(f"{option} needs --host", hint)
        if hosted and option in _FILLING:
            raise UsageError(f"{option} does not go with --host", hint)
    if command == "create":
        _check_create(call, hosted, hint)
    elif command == "restore":
        _check_restore(call, hosted, hint)
    mergeoptions.check(call)


def _check_create(call: Invocation, hosted: bool, hint: str) -> None:
    opts = call.options
    seriesoptions.check(call, hint)
    if not hosted and not opts["VOLUME"]:
        raise UsageError("no volume given", hint)
    if opts["--each"] and opts["--id-file"] is not None:
        raise UsageError("--id-file does not go with --each: each archive has an ID of its own", "see --json")
    if opts["--each"] and opts["--output"] is None and not opts["--dry-run"]:
        raise UsageError("--each needs --output, a directory", hint)
    if opts["--json"] and opts["--output"] is None and opts["--store"] is None and not opts["--dry-run"]:
        raise UsageError("--json needs --output: the archive is on standard output", hint)


def _check_restore(call: Invocation, hosted: bool, hint: str) -> None:
    opts = call.options
    if hosted:
        if opts["--plan"] is not None and (opts["--include"] or opts["--exclude"] or opts["--only"]):
            raise UsageError("--include, --exclude and --only do not go with --plan", hint)
        if opts["--keep-macs"] and not opts["--host"].startswith("libvirt:"):
            raise UsageError("--keep-macs needs --host libvirt:URI", hint)
        return
    if opts["--to"] is None and opts["--pool"] is None and not opts["--map"]:
        raise UsageError("no target given: --to, --pool or --map is missing", hint)
    if opts["--to"] is not None and opts["--pool"] is not None:
        raise UsageError("--to and --pool exclude each other", hint)
    if opts["--overwrite"] and opts["--skip-existing"]:
        raise UsageError("--overwrite and --skip-existing exclude each other", hint)
