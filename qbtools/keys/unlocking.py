"""Gets the passphrase of an archive: from a key member, or from the user who types it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from qbtools import passphrase
from qbtools.errors import PASSPHRASE_HINT, Damaged, UsageError, WrongPassphrase
from qbtools.formats import container, header, keymembers
from qbtools.formats.container import WrongKey
from qbtools.formats.containerhead import parse_fixed
from qbtools.formats.limits import Limits
from qbtools.formats.opener import Opening
from qbtools.formats.workers import Budget
from qbtools.keys import age
from qbtools.keys.wrapping import KEY_COMMAND, typed_passphrase
from qbtools.processes import capture, must_succeed

_CHEAP = 1 << 17
"""Maximum N·r·p of a derivation that is too fast to be noticed."""

_WAYS = {
    keymembers.AGE: "-i IDENTITY",
    keymembers.COMMAND: "--key-command",
    keymembers.STRETCHED: "a passphrase",
}

Warn = Callable[[str], None]


class Sources(NamedTuple):
    """Where the passphrase may come from.

    identities: files for age. command: a CMD that reads the member qb-key.command and prints the passphrase. typed:
    obtains the passphrase of the user. It is called at most once, and only if there are no identities and no command.
    """

    identities: Sequence[str]
    command: str | None
    typed: Callable[[], bytes]


class Secret(NamedTuple):
    """The passphrase of an archive. wrapped: it comes from a member that everybody with the public key can make.

    Such a passphrase does not prove who wrote the archive.
    """

    passphrase: bytes
    wrapped: bool = False


def unlock(opening: Opening, sources: Sources, limits: Limits, warn: Warn) -> Secret:
    """The passphrase of an archive.

    Damaged if a passphrase from a key member does not open the header. A typed one may be wrong. UsageError if the
    archive has no member for the sources. WrongPassphrase, Refused and Failed as the sources raise them.
    """
    untrusted_keys = opening.beginning.untrusted_keys
    if sources.identities and keymembers.AGE in untrusted_keys:
        bound = passphrase.MAX_SIZE + 1
        data = age.unwrap(sources.identities, untrusted_keys[keymembers.AGE], bound, warn)
        return Secret(_checked(opening, keymembers.AGE, data), wrapped=True)
    if sources.command is not None and keymembers.COMMAND in untrusted_keys:
        bound = passphrase.MAX_SIZE + 2  # one more than the limit, so that a longer one is noticed
        data = capture(sources.command, bound, must_succeed(KEY_COMMAND), data=untrusted_keys[keymembers.COMMAND])
        return Secret(_checked(opening, keymembers.COMMAND, data), wrapped=True)
    if sources.identities or sources.command is not None:
        raise _no_member(opening, sources)
    try:
        typed = sources.typed()
    except UsageError as error:
        only_typed = set(untrusted_keys) <= {keymembers.STRETCHED, keymembers.SIGNATURE}
        raise UsageError(error.message, error.hint if only_typed else _hint(untrusted_keys)) from None
    return Secret(_by_typing(opening, typed, limits))


def _no_member(opening: Opening, sources: Sources) -> Exception:
    if opening.parameters is not None:
        header.parse(opening.beginning.untrusted_plain)  # if the header is malformed, that is the error
    option, name = ("-i", keymembers.AGE) if sources.identities else ("--key-command", keymembers.COMMAND)
    return UsageError(f"{option}: the archive has no {name}", _hint(opening.beginning.untrusted_keys))


def _hint(untrusted_keys: dict[str, bytes]) -> str | None:
    """What opens an archive that carries its passphrase."""
    ways = [way for name, way in _WAYS.items() if name in untrusted_keys]
    if ways == [_WAYS[keymembers.AGE]]:
        return f"{ways[0]} opens this archive: its passphrase is in {keymembers.AGE}"
    return f"{' or '.join(ways)} opens this archive" if ways else None


def _by_typing(opening: Opening, typed: bytes, limits: Limits) -> bytes:
    """The typed passphrase, or the passphrase that is wrapped with it."""
    untrusted_keys = opening.beginning.untrusted_keys
    untrusted = untrusted_keys.get(keymembers.STRETCHED)
    if untrusted is None or opening.parameters is None:
        if untrusted_keys:
            _try(opening, typed, _hint(untrusted_keys) or PASSPHRASE_HINT)
        return typed  # not tried: this is found out when the archive is opened
    if opening.parameters.work <= _CHEAP:
        with suppress(WrongPassphrase):
            _try(opening, typed)
            return typed
        return _stretched(opening, typed, untrusted, limits)
    try:
        return _stretched(opening, typed, untrusted, limits)
    except (WrongPassphrase, Damaged) as error:
        with suppress(WrongPassphrase):
            _try(opening, typed)
            return typed
        raise error


def _try(opening: Opening, typed: bytes, hint: str | None = PASSPHRASE_HINT) -> None:
    try:
        opening.header(typed)
    except WrongPassphrase as error:
        raise WrongPassphrase(error.message, hint) from None


def _stretched(opening: Opening, typed: bytes, untrusted_blob: bytes, limits: Limits) -> bytes:
    name = keymembers.STRETCHED
    parameters, _salt = parse_fixed(untrusted_blob, name)
    limits.check(parameters)
    Budget(limits.memory).take(parameters.memory)
    try:
        data = container.open_bytes(typed_passphrase(typed), untrusted_blob)
    except WrongKey:
        raise WrongPassphrase("the passphrase is wrong", PASSPHRASE_HINT) from None
    except Damaged as error:
        raise Damaged(f"{name}: {error.message}") from None
    return _checked(opening, name, data)


def _checked(opening: Opening, name: str, data: bytes) -> bytes:
    """The passphrase in the content of a key member. Damaged if it does not open the header."""
    found = passphrase.without_newline(data)
    if not found or len(found) > passphrase.MAX_SIZE or b"\0" in found or b"\n" in found:
        raise Damaged(f"{name} holds no passphrase")
    try:
        opening.header(found)
    except WrongPassphrase:
        raise Damaged(f"the passphrase in {name} does not open the archive") from None
    return found
