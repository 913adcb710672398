"""Signatures with the real ssh-keygen: who may sign, what is signed, and which error is reported."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from signing import Agent, fingerprint, make_key, public, signed
from support import ROOT, environment, need
from terminal import Terminal

from qbtools.errors import Damaged, Failed, QbError, Refused
from qbtools.keys import exchange, sshsig

TEXT = sshsig.text("20261126T000000-0011223344556677", "ab" * 32)


@pytest.fixture(autouse=True)
def _without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    need("ssh-keygen", "ssh-agent", "ssh-add")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr(exchange, "has_terminal", lambda: False)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("ssh-keygen")
    return make_key(tmp_path_factory.mktemp("keys") / "key")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("ssh-keygen")
    return make_key(tmp_path_factory.mktemp("keys") / "other")


def listed(*lines: str, name: str | None = None, when: str | None = None) -> sshsig.Signers:
    return sshsig.Signers("".join(f"{line}\n" for line in lines).encode(), "LIST", name, when)


def sign(key: str) -> bytes:
    return sshsig.sign(key, TEXT, lambda line: pytest.fail(f"a warning: {line}"))


def refused(kind: type[QbError], signature: bytes, signers: sshsig.Signers, text: bytes = TEXT) -> str:
    """The message of the error of exactly that kind."""
    with pytest.raises(kind) as caught:
        sshsig.verify(signature, text, signers)
    assert type(caught.value) is kind
    return caught.value.message


def program(place: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds a script that is first in PATH."""
    path = place / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")


def run_sign(key: Path, *words: str) -> list[str]:
    """The words of a program that signs and prints the signature, or the message of the error."""
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from qbtools.errors import QbError
from qbtools.keys import sshsig
try:
    sys.stdout.write(sshsig.sign({str(key)!r}, {TEXT!r}, sys.exit).decode())
except QbError as error:
    sys.exit(error.message + "|" + str(error.hint))
"""
    return [*words, sys.executable, "-c", code]


# --- what is signed, and by which key ---


def test_the_text() -> None:
    assert sshsig.text("ID", "00ff") == b"qb-signature 1\nbackup-id ID\nheader 00ff\n"


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_a_key_signs_and_ssh_keygen_says_the_same(tmp_path: Path, kind: str) -> None:
    key = make_key(tmp_path / "key", kind)
    signature = sign(str(key))
    assert sshsig.fingerprint(signature) == fingerprint(key)
    assert sshsig.verify(signature, TEXT, listed(f"alice {public(key)}")) == ("alice", fingerprint(key))
    (tmp_path / "list").write_text(f"alice {public(key)}\n")
    (tmp_path / "sig").write_bytes(signature)
    words = ["ssh-keygen", "-Y", "verify", "-n", "qbtools", "-I", "alice", "-f", "list", "-s", "sig"]
    subprocess.run(words, input=TEXT, check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)


def test_a_public_key_whose_private_half_an_agent_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = make_key(tmp_path / "key")
    alone = tmp_path / "alone.pub"
    alone.write_text(public(key))
    with Agent(key) as agent:
        monkeypatch.setenv("SSH_AUTH_SOCK", agent.socket)
        assert sshsig.fingerprint(sign(str(alone))) == fingerprint(key)
    with pytest.raises(Failed, match="cannot sign with .*alone.pub: No private key found") as caught:
        sign(str(alone))
    assert caught.value.hint == "give the private key, or add it to an agent with ssh-add"


def test_a_certificate(tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, authority = make_key(tmp_path / "mine"), make_key(tmp_path / "authority")
    subprocess.run(["ssh-keygen", "-q", "-s", authority, "-I", "me", "-n", "alice", f"{mine}.pub"], check=True)
    with Agent(mine) as agent:
        monkeypatch.setenv("SSH_AUTH_SOCK", agent.socket)
        signature = sign(f"{mine}-cert.pub")
    trusting = listed(f"alice cert-authority {public(authority)}")
    assert sshsig.verify(signature, TEXT, trusting) == ("alice", fingerprint(mine))
    assert "not listed" in refused(Damaged, signature, listed(f"bob cert-authority {public(authority)}"))
    assert "not listed" in refused(Damaged, signature, listed(f"alice {public(authority)}"))


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_the_fingerprint_of_other_certificates(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, authority = make_key(tmp_path / "mine", kind), make_key(tmp_path / "authority")
    subprocess.run(["ssh-keygen", "-q", "-s", authority, "-I", "me", f"{mine}.pub"], check=True)
    with Agent(mine) as agent:
        monkeypatch.setenv("SSH_AUTH_SOCK", agent.socket)
        assert sshsig.fingerprint(sign(f"{mine}-cert.pub")) == fingerprint(mine)


def test_a_command_signs(key: Path) -> None:
    command = f"ssh-keygen -q -Y sign -n qbtools -f {key}"
    assert sshsig.sign_with_command(command, TEXT) == signed(key, TEXT)


# --- a signature that cannot be made ---


def test_a_key_with_a_passphrase_is_unlocked_at_the_terminal(tmp_path: Path) -> None:
    key = make_key(tmp_path / "key", passphrase="open sesame")
    with Terminal(*run_sign(key)) as terminal:
        terminal.expect(b"passphrase")
        assert not terminal.echoes()
        terminal.type(b"open sesame\n")
        ended = terminal.finish()
    assert ended.stdout == signed_with_passphrase(key, "open sesame", TEXT) and not ended.stderr
    with Terminal(*run_sign(key)) as terminal:
        terminal.expect(b"passphrase")
        terminal.type(b"open barley\n")
        ended = terminal.finish()
    assert ended.returncode == 1 and b"incorrect passphrase" in ended.stderr


def signed_with_passphrase(key: Path, passphrase: str, text: bytes) -> bytes:
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", passphrase, "-N", "", "-f", key], check=True, capture_output=True)
    plain = signed(key, text)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", passphrase, "-f", key], check=True, capture_output=True)
    return plain


def test_a_key_with_a_passphrase_without_a_terminal(tmp_path: Path) -> None:
    """No window asks for it, either, and nothing waits."""
    key = make_key(tmp_path / "key", passphrase="open sesame")
    asks = environment(DISPLAY=":0", SSH_ASKPASS=str(tmp_path / "ask"), SSH_ASKPASS_REQUIRE="force")
    (tmp_path / "ask").write_text(f"#!/bin/sh\n: >{tmp_path}/asked\necho open sesame\n")
    (tmp_path / "ask").chmod(0o755)
    ended = subprocess.run(
        run_sign(key), env=asks, capture_output=True, timeout=60, start_new_session=True, check=False
    )
    message, hint = ended.stderr.decode().strip().split("|")
    assert ended.returncode == 1 and "incorrect passphrase" in message and "agent" in hint
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.write_text("no key\n"), "ssh-keygen finds no SSH key in it$"),
        (lambda path: path.mkdir(), "ssh-keygen finds no SSH key in it$"),
        (lambda path: make_key(path).chmod(0o644), "Permissions 0644 for .* are too open"),
    ],
)
def test_what_is_no_key(tmp_path: Path, make: object, reason: str) -> None:
    make(tmp_path / "key")  # type: ignore[operator]
    with pytest.raises(Failed, match=f"^cannot (sign with|read the signing key) {tmp_path}/key: .*{reason}"):
        sign(str(tmp_path / "key"))


def test_an_agent_that_does_not_answer(tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "PATIENCE", 1.0)
    monkeypatch.chdir(tmp_path)  # a socket's path has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind("socket")
        silent.listen()
        monkeypatch.setenv("SSH_AUTH_SOCK", "socket")
        with pytest.raises(Failed, match="ssh-keygen"):
            sign(str(key))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("kill -KILL $$", "ssh-keygen"),
        ("kill -PIPE $$", "ssh-keygen"),
        ("exec sleep 1000", "ssh-keygen"),
        ("exec >&-; exec sleep 1000", "ssh-keygen"),
        ("head -c 10000000 /dev/zero", "ssh-keygen printed more than 65536 bytes"),
        ("exit 0", "ssh-keygen printed no valid signature"),
        ("echo hello", "ssh-keygen printed no valid signature"),
        ("echo no luck >&2; exit 255", "cannot sign with /dev/null: no luck"),
        ("exit 255", "cannot sign with /dev/null: ssh-keygen ended with status 255"),
    ],
)
def test_an_ssh_keygen_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str) -> None:
    monkeypatch.setattr(exchange, "PATIENCE", 1.0)
    program(tmp_path, "ssh-keygen", text, monkeypatch)
    began = time.monotonic()
    with pytest.raises(Failed, match=reason):
        sign("/dev/null")
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("exit 3", "the sign command ended with status 3"),
        ("cat >/dev/null", "the sign command printed no valid signature"),
        ("cat", "the sign command printed no valid signature"),
        ("yes", "the sign command printed more than 65536 bytes"),
        ("kill -KILL $$", "the sign command was killed by SIGKILL"),
        ("ssh-keygen -q -Y sign -n git -f KEY", "its namespace is git"),
        ("echo more | ssh-keygen -q -Y sign -n qbtools -f KEY", "incorrect signature"),
        ("ssh-keygen -q -Y sign -n qbtools -f KEY | head -c 150", "is not an SSH signature"),
    ],
)
def test_a_command_that_signs_nothing(key: Path, monkeypatch: pytest.MonkeyPatch, command: str, reason: str) -> None:
    with pytest.raises(Failed, match=reason):
        sshsig.sign_with_command(command.replace("KEY", str(key)), TEXT)


def test_without_ssh_keygen(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signature = signed(key, TEXT)
    monkeypatch.setenv("PATH", "/nowhere")
    for call in (lambda: sign("/dev/null"), lambda: sshsig.verify(signature, TEXT, listed("x"))):
        with pytest.raises(Failed, match="the program ssh-keygen is not installed") as caught:
            call()
        assert caught.value.hint is not None and "install OpenSSH" in caught.value.hint


# --- who may sign ---


def test_a_key_that_is_listed(key: Path, other: Path) -> None:
    signature = signed(key, TEXT)
    mine = fingerprint(key)
    for lines in (
        [f"alice {public(key)}"],
        ["# a comment", "", f"bob {public(other)}", f"  alice {public(key)} and a comment"],
        [f'alice namespaces="git,qbtools" {public(key)}'],
        [f'alice valid-after="20200101",valid-before="20991231" {public(key)}'],
        ["not a line at all", f"alice {public(key)}"],
    ):
        assert sshsig.verify(signature, TEXT, listed(*lines)) == ("alice", mine)


def test_a_line_for_git_before_ours_does_not_hide_it(key: Path) -> None:
    """find-principals of ssh-keygen knows no namespaces, and prints the first line alone."""
    for first in ("carol", "alice"):
        lines = listed(f'{first} namespaces="git" {public(key)}', f'alice namespaces="qbtools" {public(key)}')
        assert sshsig.verify(signed(key, TEXT), TEXT, lines).principal == "alice"
    expired = f'old valid-before="20200101" {public(key)}'
    assert sshsig.verify(signed(key, TEXT), TEXT, listed(expired, f"alice {public(key)}")).principal == "alice"


def test_a_pattern_is_a_principal_as_well(key: Path) -> None:
    assert sshsig.verify(signed(key, TEXT), TEXT, listed(f"*@example.org,alice {public(key)}"))
    assert sshsig.verify(signed(key, TEXT), TEXT, listed(f"*@example.org {public(key)}", name="eve@example.org"))
    assert "not listed in LIST for eve" in refused(
        Damaged, signed(key, TEXT), listed(f"*,!eve {public(key)}", name="eve")
    )


def test_a_name_chooses_the_lines_that_count(key: Path, other: Path) -> None:
    lines = (f"alice {public(key)}", f"bob {public(other)}")
    assert sshsig.verify(signed(key, TEXT), TEXT, listed(*lines, name="alice")).principal == "alice"
    message = refused(Damaged, signed(key, TEXT), listed(*lines, name="bob"))
    assert message == f"the archive is signed by the key {fingerprint(key)}, which is not listed in LIST for bob"


def test_a_key_that_is_not_listed(key: Path, other: Path) -> None:
    for lines in (
        (),
        (f"alice {public(other)}",),
        (f"# alice {public(key)}",),
        (f"alice cert-authority {public(key)}",),
    ):
        message = refused(Damaged, signed(key, TEXT), listed(*lines))
        assert message == f"the archive is signed by the key {fingerprint(key)}, which is not listed in LIST"


def test_a_file_that_is_no_list(key: Path, other: Path) -> None:
    def hint(lines: bytes) -> str | None:
        with pytest.raises(Damaged, match="which is not listed in LIST$") as caught:
            sshsig.verify(signed(key, TEXT), TEXT, sshsig.Signers(lines, "LIST"))
        return caught.value.hint

    for lines in (b"", b"junk\n", public(key).encode(), key.read_bytes()):
        assert hint(lines) == 'a line of this list is a name, namespaces="qbtools" and a public key'
    assert hint(f"alice {public(other)}\n".encode()) is None


def test_a_key_that_is_listed_for_another_use(key: Path) -> None:
    message = refused(Damaged, signed(key, TEXT), listed(f'alice namespaces="git" {public(key)}'))
    assert message.endswith("which is not listed in LIST for the namespace qbtools")


@pytest.mark.parametrize(
    ("option", "reason", "then"),
    [
        ('valid-before="20200101"', "which has expired", "20191231"),
        ('valid-after="20980101"', "which is not valid yet", "209812310000Z"),
    ],
)
def test_a_key_that_counts_at_another_time(key: Path, option: str, reason: str, then: str) -> None:
    line = f"alice {option} {public(key)}"
    assert reason in refused(Refused, signed(key, TEXT), listed(line))
    assert reason in refused(Refused, signed(key, TEXT), listed(line, name="alice"))
    with pytest.raises(Refused) as caught:
        sshsig.verify(signed(key, TEXT), TEXT, listed(line))
    assert caught.value.hint is not None and "--signers-time" in caught.value.hint
    assert sshsig.verify(signed(key, TEXT), TEXT, listed(line, when=then)).principal == "alice"


# --- what is signed ---


def test_a_signature_of_something_else(key: Path) -> None:
    lines = listed(f"alice {public(key)}")
    for text in (b"", TEXT + b"\n", sshsig.text("ANOTHER", "ab" * 32)):
        assert "not a signature of this archive" in refused(Damaged, signed(key, text), lines)


def test_a_signature_for_another_use(key: Path) -> None:
    lines = listed(f"alice {public(key)}")
    for namespace in ("git", "qbtools-receipt", "qbtools2", "\x1b[31m"):
        assert "its namespace is" in refused(Damaged, signed(key, TEXT, namespace), lines)


def test_what_is_no_signature(key: Path) -> None:
    lines = listed(f"alice {public(key)}")
    good = signed(key, TEXT)
    blob = base64.b64decode(b"".join(good.split(b"\n")[1:-2]))
    begin, end = b"-----BEGIN SSH SIGNATURE-----\n", b"\n-----END SSH SIGNATURE-----\n"
    wrong = [b"", b"x", good[:-10], good[1:], good + good, good + b"x", b"\n" + good, begin + end, begin + b"?" + end]
    wrong += [begin + base64.b64encode(part) + end for part in (blob[:5], blob[:30], blob[:70], blob[1:])]
    wrong += [begin + base64.b64encode(b"SSHSIG\0\0\0\1" + b"\xff" * 60000) + end, b"\0" * 65536]
    for data in wrong:
        assert "SSH signature" in refused(Damaged, data, lines)
        with pytest.raises(Damaged):
            sshsig.fingerprint(data)
    for at in range(0, len(blob), 7):  # one bit of anything
        flipped = bytearray(blob)
        flipped[at] ^= 1
        refused(Damaged, begin + base64.b64encode(flipped) + end, lines)


# --- the list and the time ---


def test_a_list_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "nothing", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(Failed, match=f"^cannot read the list of signers {path}: {reason}"):
            sshsig.read_signers(str(path))
    with pytest.raises(Failed, match="/dev/zero has more than 1048576 bytes"):
        sshsig.read_signers("/dev/zero")


def test_a_list_from_a_pipe(key: Path) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, f"alice {public(key)}\n".encode())
    os.close(theirs)
    signers = sshsig.read_signers(f"/dev/fd/{ours}", name="alice")
    os.close(ours)
    assert sshsig.verify(signed(key, TEXT), TEXT, signers).principal == "alice"


@pytest.mark.parametrize("text", ["20261126", "202611261200", "20261126120000Z", "20261126Z", "19710101"])
def test_a_time_that_ssh_keygen_takes(key: Path, text: str) -> None:
    assert sshsig.time_problem(text) is None
    assert sshsig.verify(signed(key, TEXT), TEXT, listed(f"alice {public(key)}", when=text))


@pytest.mark.parametrize(
    "text",
    ["", "Z", "now", "2026-11-26", "20261332", "2026112612", "20261126T120000", "٢٠٢٦١١٢٦", "00010101", "19700101"],
)
def test_a_time_that_it_does_not_take(text: str) -> None:
    problem = sshsig.time_problem(text)
    assert problem is not None and "YYYYMMDD" in problem


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("echo 'unknown option -- Y' >&2; exit 1", "ssh-keygen failed: unknown option -- Y"),
        ("kill -KILL $$", "ssh-keygen"),
        ("exec sleep 1000", "ssh-keygen"),
        ("echo 'Couldn'\"'\"'t read signature file: nope' >&2; exit 255", "Couldn't read signature file"),
    ],
)
def test_an_ssh_keygen_that_cannot_verify(
    tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    signature = signed(key, TEXT)
    monkeypatch.setattr(exchange, "PATIENCE", 1.0)
    program(tmp_path, "ssh-keygen", text, monkeypatch)
    assert reason in refused(Failed, signature, listed(f"alice {public(key)}"))


def test_no_descriptor_is_left_open(key: Path) -> None:
    signature, before = signed(key, TEXT), os.listdir("/proc/self/fd")
    sshsig.verify(signature, TEXT, listed(f"alice {public(key)}"))
    refused(Damaged, signature, listed())
    sign(str(key))
    sshsig.sign_with_command(f"ssh-keygen -q -Y sign -n qbtools -f {key}", TEXT)
    assert os.listdir("/proc/self/fd") == before
