"""Makes and checks the signature of an archive with ssh-keygen: the member qb-signature.

ssh-keygen ends with 255 for every error. So some things are checked before: the list of signers is read here, and the
signature is first verified without the list. After that ssh-keygen checks whether its key is listed.
"""

from __future__ import annotations

import io
import os
import time

from qbtools.errors import Damaged, Failed, QbError, Refused, naming
from qbtools.formats import keymembers
from qbtools.keys import exchange, sshblob
from qbtools.lean import TYPE_CHECKING, NamedTuple
from qbtools.processes import capture, must_succeed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

HINT = "install OpenSSH: the package openssh-client, in Fedora openssh"

MAX_SIGNERS = 1 << 20
"""Maximum bytes of a list of signers."""

NAMESPACE = "qbtools"
"""The purpose of a signature: a signature that was made for git or a letter is not valid for an archive."""

_PROGRAM = "ssh-keygen"
_MEMBER = keymembers.SIGNATURE
_MAX_SIZE = keymembers.BOUNDS[_MEMBER]
_MAX_WORDS = 1 << 16  # bytes of what ssh-keygen prints, if it is not a signature
_NO_WINDOW = {"SSH_ASKPASS_REQUIRE": "never"}  # a passphrase is asked for on the terminal
_BROKEN = ("Couldn't read", "Unable to", "Invalid")  # what ssh-keygen says where it could not do its work
_KINDS = (b"ssh-", b"ecdsa-", b"sk-")  # how the kind of a public key begins
_NO = 255  # its status for everything that is not right
_DIGITS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_ABOVE = 10  # the lowest descriptor that keeps its number in a program that we start


class Signer(NamedTuple):
    """Who signed. principal: the name in the list of signers, maybe a pattern. fingerprint: of the key."""

    principal: str
    fingerprint: str


class Signers(NamedTuple):
    """Who may sign.

    lines: a list as in ssh-keygen(1), ALLOWED SIGNERS. path: the file of the list. name: only this principal may sign.
    when: the time at which keys must be valid, in the form of time_problem(); None for now.
    """

    lines: bytes
    path: str
    name: str | None = None
    when: str | None = None


def read_signers(path: str, name: str | None = None, when: str | None = None) -> Signers:
    """The list of signers in a file. Failed if it cannot be read, or has more than MAX_SIGNERS bytes."""
    with naming(f"read the list of signers {path}"), io.BufferedReader(io.FileIO(path)) as file:
        lines = file.read(MAX_SIGNERS + 1)
    if len(lines) > MAX_SIGNERS:
        raise Failed(f"the list of signers {path} has more than {MAX_SIGNERS} bytes")
    return Signers(lines, path, name, when)


def time_problem(text: str) -> str | None:
    """The problem of text as a time (YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, with Z for UTC), or None."""
    digits = text.removesuffix("Z")
    if digits.isascii() and digits.isdecimal() and len(digits) in _DIGITS:
        try:
            if time.strptime(digits, _DIGITS[len(digits)]).tm_year > 1970:
                return None
        except ValueError:
            pass
    return "not a time: write YYYYMMDD or YYYYMMDDHHMMSS, with Z at the end for UTC"


def text(backup_id: str, header_digest: str) -> bytes:
    """The text that is signed. header_digest: SHA-256 of both members of the header, in hexadecimal."""
    return f"qb-signature 1\nbackup-id {backup_id}\nheader {header_digest}\n".encode("ascii")


def sign(keyfile: str, signed: bytes, warn: Callable[[str], None]) -> bytes:
    """Signs signed with a private key, or with the private key in an agent that belongs to a public key.

    ssh-keygen asks on the terminal for the passphrase of the key. warn: prints its messages while it waits for the
    user. Failed if there is no valid signature.
    """
    key = exchange.readable(keyfile, "the signing key")
    words = [exchange.path_of(_PROGRAM, HINT), "-q", "-Y", "sign", "-n", NAMESPACE, "-f", key]
    outcome = exchange.exchange(words, signed, _MAX_SIZE, warn, _NO_WINDOW)
    if len(outcome.output) > _MAX_SIZE:
        raise Failed(f"{_PROGRAM} printed more than {_MAX_SIZE} bytes")
    if outcome.status:
        raise Failed(*_unsigned(keyfile, _reason(outcome)))
    return _made(outcome.output, signed, _PROGRAM)


def _unsigned(keyfile: str, reason: str) -> tuple[str, str | None]:
    """Why a key has not signed, and a hint. reason: the words of ssh-keygen."""
    hint = None
    if "No private key" in reason:
        hint = "give the private key, or add it to an agent with ssh-add"
    elif "passphrase" in reason and not exchange.has_terminal():
        hint = "without a terminal, add the key to an agent with ssh-add"
    elif reason.startswith("Couldn't load public key"):  # what it tries last, for a file in which it finds no key
        reason = f"{_PROGRAM} finds no SSH key in it"
    return f"cannot sign with {keyfile}: {reason}", hint


def sign_with_command(command: str, signed: bytes) -> bytes:
    """The signature that a user's CMD prints when it reads signed. Failed if it is not valid."""
    maker = "the sign command"
    signature = capture(command, _MAX_SIZE + 1, must_succeed(maker), signed)
    if len(signature) > _MAX_SIZE:
        raise Failed(f"{maker} printed more than {_MAX_SIZE} bytes")
    return _made(signature, signed, maker)


def fingerprint(untrusted_signature: bytes) -> str:
    """The fingerprint of the key that a signature names, in the form of `ssh-keygen -l`. Nothing is verified. Damaged
    as verify()."""
    return sshblob.parse(untrusted_signature, _MEMBER).fingerprint


def verify(untrusted_signature: bytes, signed: bytes, signers: Signers) -> Signer:
    """Verifies a signature and returns who has signed.

    Damaged if it is not a signature of signed, or its key is not listed for this use. Refused if the key is listed,
    but not valid at that time. Failed if ssh-keygen is missing or does not work.
    """
    key = _check(untrusted_signature, signed)
    said: list[str] = []
    for line in _lines_for(key, signers.lines):
        with _Files(line + b"\n", untrusted_signature) as (listed, signature):
            words = ["-f", listed, "-s", signature]
            if signers.when is not None:
                words.append(f"-Overify-time={signers.when}")
            for principal in [signers.name] if signers.name is not None else _principals(words, said):
                answer = _ask("verify", [*words, "-n", NAMESPACE, "-I", principal], signed)
                said += answer.said
                if not answer.status:
                    return Signer(principal, key.fingerprint)
    raise _does_not_count(key.fingerprint, signers, said)


def _made(signature: bytes, signed: bytes, maker: str) -> bytes:
    """Verifies a new signature: with a wrong one, the archive could not be opened. Failed if it is wrong."""
    try:
        _check(signature, signed)
    except Damaged as error:
        raise Failed(f"{maker} printed no valid signature: {error.message}") from None
    return signature


def _check(untrusted_signature: bytes, signed: bytes) -> sshblob.Named:
    """What a signature names. Damaged if it is not a signature of signed by any key."""
    key = sshblob.parse(untrusted_signature, _MEMBER)
    if key.namespace != NAMESPACE:
        raise Damaged(f"{_MEMBER} was made for another use: its namespace is {key.namespace}, not {NAMESPACE}")
    with _Files(untrusted_signature) as (signature,):
        answer = _ask("check-novalidate", ["-n", NAMESPACE, "-s", signature], signed)
    if answer.status:
        raise Damaged(f"{_MEMBER} is not a signature of this archive: {_reason(answer)}")
    return key


def _lines_for(key: sshblob.Named, lines: bytes) -> Iterator[bytes]:
    """The lines of a list that may contain a key.

    They are tried one by one, because find-principals of ssh-keygen stops at the first, even for another namespace.
    """
    for line in lines.splitlines():
        words = line.lstrip()
        if not words.startswith(b"#") and (key.key in words or (key.certified and b"cert-authority" in words)):
            yield words


def _principals(words: list[str], said: list[str]) -> list[str]:
    """The principals of a list of one line if it has the key. Messages of ssh-keygen are added to said."""
    answer = _ask("find-principals", words, b"")
    said += answer.said
    return [] if answer.status else answer.output.decode("utf-8", "surrogateescape").splitlines()


def _ask(verb: str, words: Sequence[str], data: bytes) -> exchange.Outcome:
    """Runs ssh-keygen; the status of the result is 0 or 255. Failed for any other status."""
    argv = [exchange.path_of(_PROGRAM, HINT), "-Y", verb, *words]
    outcome = exchange.exchange(argv, data, _MAX_WORDS, _hush, patience=exchange.PATIENCE)
    broken = next((line for line in outcome.said if line.startswith(_BROKEN)), None)
    if outcome.status not in (0, _NO) or broken is not None:
        raise Failed(f"{_PROGRAM} failed: {broken or _reason(outcome)}", "signatures need OpenSSH 8.2 or newer")
    return outcome


def _hush(_line: str) -> None:
    """Prints nothing. Messages of ssh-keygen become part of our message, or are not useful."""


def _reason(outcome: exchange.Outcome) -> str:
    """The reason in the words of ssh-keygen."""
    for line in outcome.said:
        words = line.rpartition("Enter passphrase:")[2].lstrip()
        if words and not words.startswith(("@", "Signing data")):
            return words
    return f"{_PROGRAM} ended with status {outcome.status}"


def _does_not_count(fingerprint: str, signers: Signers, said: list[str]) -> QbError:
    """The error for a good signature whose key is not accepted. said: what ssh-keygen said about its lines."""
    every = "\n".join(said)
    key = f"the archive is signed by the key {fingerprint}"
    for words, reason in (("has expired", "which has expired"), ("not yet valid", "which is not valid yet")):
        if words in every:
            then = "" if signers.when is None else f" at {signers.when}"
            hint = "if the key was valid when the archive was made, give that time with --signers-time"
            return Refused(f"{key}, {reason}{then} according to {signers.path}", hint)
    if "not permitted for use in signature namespace" in every:
        return Damaged(f"{key}, which is not listed in {signers.path} for the namespace {NAMESPACE}")
    owner = "" if signers.name is None else f" for {signers.name}"
    listing = 'a line of this list is a name, namespaces="qbtools" and a public key'
    reason = f"{key}, which is not listed in {signers.path}{owner}"
    return Damaged(reason, None if _has_keys(signers.lines) else listing)


def _has_keys(lines: bytes) -> bool:
    """Whether any line of a list has a key behind a name: a file of public keys has none, nor has a private key."""
    return any(word.startswith(_KINDS) for line in lines.splitlines() for word in line.split()[1:])


class _Files:
    """A context manager for files in memory with these contents. It returns their paths for a program that we start."""

    def __init__(self, *contents: bytes) -> None:
        self._contents = contents
        self._fds: list[int] = []

    def __enter__(self) -> list[str]:
        import fcntl

        try:
            for content in self._contents:
                made = os.memfd_create("qbtools")
                try:
                    os.write(made, content)
                    # The program does not use this number itself. It opens the path, so it reads from the beginning.
                    self._fds.append(fcntl.fcntl(made, fcntl.F_DUPFD, _ABOVE))
                finally:
                    os.close(made)
        except BaseException:
            self._close()
            raise
        return [f"/dev/fd/{fd}" for fd in self._fds]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())
