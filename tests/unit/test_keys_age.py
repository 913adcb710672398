"""Wrapping with age: the real program if it must succeed, a stand-in if it must fail."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

import pytest
from support import need

from qbtools.errors import Damaged, Failed, QbError, Refused, WrongPassphrase
from qbtools.keys import age

SECRET = b"abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst"

pytestmark = pytest.mark.usefixtures("programs")


@pytest.fixture(scope="module")
def programs() -> None:
    need("age", "age-keygen", "ssh-keygen")


def identity(path: Path) -> str:
    """Makes an identity; its recipient."""
    subprocess.run(["age-keygen", "-o", path], check=True, capture_output=True)
    return subprocess.run(["age-keygen", "-y", path], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("age")


@pytest.fixture(scope="module")
def recipient(place: Path) -> str:
    return identity(place / "mine")


@pytest.fixture(scope="module")
def blob(recipient: str) -> bytes:
    return age.wrap([recipient], [], SECRET, pytest.fail)


def test_what_is_wrapped_comes_out(place: Path, recipient: str, blob: bytes) -> None:
    assert age.stanzas(blob) == [("X25519", [age.stanzas(blob)[0][1][0]])]
    assert age.unwrap([str(place / "mine")], blob, 100, pytest.fail) == SECRET
    by_hand = subprocess.run(["age", "-d", "-i", place / "mine"], input=blob, capture_output=True, check=True)
    assert by_hand.stdout == SECRET


def test_recipients_from_files_and_of_ssh(place: Path, recipient: str) -> None:
    kinds = []
    for kind in ("ed25519", "rsa"):
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", place / kind], check=True)
    listed = place / "list"
    listed.write_text(f"# the team\n{recipient}\n{(place / 'rsa.pub').read_text()}")
    blob = age.wrap([(place / "ed25519.pub").read_text().strip()], [str(listed)], SECRET, pytest.fail)
    kinds = [kind for kind, _words in age.stanzas(blob)]
    assert sorted(kinds) == ["X25519", "ssh-ed25519", "ssh-rsa"]
    for key in ("mine", "ed25519", "rsa"):
        assert age.unwrap([str(place / key)], blob, 52, pytest.fail) == SECRET


def test_an_armored_file(place: Path, recipient: str) -> None:
    blob = subprocess.run(["age", "-a", "-r", recipient], input=SECRET, capture_output=True, check=True).stdout
    assert blob.startswith(b"-----BEGIN AGE")
    assert [kind for kind, _words in age.stanzas(blob)] == ["X25519"]
    assert age.unwrap([str(place / "mine")], blob, 100, pytest.fail) == SECRET


def test_another_identity(tmp_path: Path, blob: bytes) -> None:
    identity(tmp_path / "other")
    with pytest.raises(WrongPassphrase, match=r"^no identity opens qb-key.age: age: no identity matched any"):
        age.unwrap([str(tmp_path / "other")], blob, 100, pytest.fail)


def test_an_identity_that_is_not_there(blob: bytes) -> None:
    with pytest.raises(Failed, match=r"^cannot read the identity /nonexistent: No such file or directory$"):
        age.unwrap(["/nonexistent"], blob, 100, pytest.fail)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda blob: b"", "qb-key.age is not an age file"),
        (lambda blob: b"hello\n", "qb-key.age is not an age file"),
        (lambda blob: blob[1:], "qb-key.age is not an age file"),
        (lambda blob: b"age-encryption.org/v2\n" + blob[22:], "qb-key.age is not an age file"),
        (lambda blob: blob[:60], "qb-key.age is cut: its header does not end"),
        (lambda blob: b"-----BEGIN AGE ENCRYPTED FILE-----\n" + base64.b64encode(blob), "damaged armor"),
        (lambda blob: b"-----BEGIN AGE ENCRYPTED FILE-----\n!\n-----END AGE ENCRYPTED FILE-----\n", "damaged armor"),
    ],
)
def test_what_is_no_age_file_is_damage(damage: object, message: str, blob: bytes, place: Path) -> None:
    with pytest.raises(Damaged, match=message):
        age.unwrap([str(place / "mine")], damage(blob), 100, pytest.fail)  # type: ignore[operator]


def test_one_that_was_cut_behind_its_header_does_not_open(blob: bytes, place: Path) -> None:
    for size in (len(blob) - 1, len(blob) - 60):
        with pytest.raises(WrongPassphrase):
            age.unwrap([str(place / "mine")], blob[:size], 100, pytest.fail)


def test_one_that_a_passphrase_opens_is_refused(place: Path) -> None:
    """age would ask on the terminal, and only there."""
    salt = base64.b64encode(bytes(16)).rstrip(b"=").decode()
    body = base64.b64encode(bytes(32)).rstrip(b"=").decode()
    mac = base64.b64encode(bytes(32)).rstrip(b"=").decode()
    made = f"age-encryption.org/v1\n-> scrypt {salt} 18\n{body}\n--- {mac}\n".encode() + bytes(48)
    for blob in (
        made,
        b"-----BEGIN AGE ENCRYPTED FILE-----\n" + base64.encodebytes(made) + b"-----END AGE ENCRYPTED FILE-----\n",
    ):
        with pytest.raises(Refused, match=r"^qb-key.age was made with a passphrase"):
            age.unwrap([str(place / "mine")], blob, 100, pytest.fail)


def test_more_than_a_passphrase_is_damage(place: Path, recipient: str) -> None:
    blob = age.wrap([recipient], [], bytes(2000), pytest.fail)
    with pytest.raises(Damaged, match=r"^qb-key.age holds more than 100 bytes: that is no passphrase$"):
        age.unwrap([str(place / "mine")], blob, 100, pytest.fail)


@pytest.mark.parametrize("recipient", ["age1nothing", "ssh-ed25519 nothing", "", "-R"])
def test_a_recipient_that_is_none(recipient: str) -> None:
    with pytest.raises(Failed, match=r"^cannot wrap the passphrase: age: "):
        age.wrap([recipient], [], SECRET, pytest.fail)


def test_a_recipients_file(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"^cannot read the recipients file .*: No such file or directory$"):
        age.wrap([], [str(tmp_path / "list")], SECRET, pytest.fail)
    (tmp_path / "list").write_text("nobody\n")
    with pytest.raises(Failed, match=r"^cannot wrap the passphrase: age: .*list"):
        age.wrap([], [str(tmp_path / "list")], SECRET, pytest.fail)


def test_a_file_for_a_recipient_and_the_other_way_round(tmp_path: Path, recipient: str) -> None:
    listed = tmp_path / "list"
    listed.write_text(f"{recipient}\n")
    with pytest.raises(Failed) as caught:
        age.wrap([recipient, str(listed)], [], SECRET, pytest.fail)
    assert caught.value.hint == f"-R {listed} takes the recipients that this file lists"
    with pytest.raises(Failed) as caught:
        age.wrap([], [recipient], SECRET, pytest.fail)
    assert caught.value.hint == "-r takes a recipient, -R a file with recipients"


def test_too_many_recipients(recipient: str) -> None:
    assert len(age.wrap([recipient] * 600, [], SECRET, pytest.fail)) < 65536
    with pytest.raises(Refused, match=r"^too many recipients: what age prints for them has more than 65536 bytes$"):
        age.wrap([recipient] * 1000, [], SECRET, pytest.fail)


# --- an age that fails ---


def stand_in(place: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "age").write_text(f"#!/bin/bash\n{text}\n")
    (place / "age").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")


FAULTS: dict[str, tuple[str, str, type[QbError], type[QbError] | None]] = {
    "killed": ("kill -KILL $$", "age was killed by SIGKILL", Failed, Failed),
    "hanging": ("exec sleep 1000", "age does not end: it was killed after 1 seconds", Failed, Failed),
    "silent": ("exit 0", "printed nothing that is an age file", Failed, None),
    "failing": ("echo 'age: error: a plugin is missing' >&2; exit 1", "a plugin is missing", Failed, WrongPassphrase),
    "wordless": ("exit 3", "age: ended with status 3", Failed, WrongPassphrase),
    "endless": ("exec head -c 10M /dev/zero", "has more than|holds more than", Refused, Damaged),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault(fault: str, tmp_path: Path, blob: bytes, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, message, wrapping, opening = FAULTS[fault]
    stand_in(tmp_path, text, monkeypatch)
    with pytest.raises(wrapping, match=message):
        age.wrap(["age1x"], [], SECRET, pytest.fail, patience=1)
    if opening is None:  # what is empty is no passphrase: the caller says so
        assert age.unwrap([str(place / "mine")], blob, 100, pytest.fail, patience=1) == b""
    else:
        with pytest.raises(opening, match=message):
            age.unwrap([str(place / "mine")], blob, 100, pytest.fail, patience=1)


def test_no_age(tmp_path: Path, blob: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for call in (
        lambda: age.wrap(["age1x"], [], SECRET, pytest.fail),
        lambda: age.unwrap(["/dev/null"], blob, 100, pytest.fail),
    ):
        with pytest.raises(Failed, match=r"^the program age is not installed$") as caught:
            call()
        assert caught.value.hint == "install age: https://age-encryption.org"


def test_its_messages_are_shown_after_a_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, "echo 'age: warning: odd recipient' >&2; echo age-encryption.org/v1", monkeypatch)
    said: list[str] = []
    assert age.wrap(["age1x"], [], SECRET, said.append) == b"age-encryption.org/v1\n"
    assert said == ["age: warning: odd recipient"]
