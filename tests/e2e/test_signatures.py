"""Signed archives: who may have written one, and the attacks of somebody who may not."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from signing import Agent, fingerprint, make_key, public, signed
from support import bash, need, run
from terminal import Terminal
from vectors import archivebytes as made
from vectors.archivebytes import Pieces
from version3 import Maker

NAME = "vm1/root.img"
DATA = made.content("root", 1000)
SIGNATURE, KEY = "qb-signature", "qb-key.age"


class Keys(NamedTuple):
    """mine is listed in `list`, stranger is not. expired and git list mine, so that it does not count."""

    place: Path
    mine: Path
    stranger: Path
    identity: Path
    recipient: str

    def list(self, name: str) -> str:
        return str(self.place / name)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    need("ssh-keygen", "age", "age-keygen")
    place = tmp_path_factory.mktemp("keys")
    mine, stranger = make_key(place / "mine"), make_key(place / "stranger")
    lists = {
        "list": f"# who saves\n\nalice {public(mine)}\n",
        "expired": f'alice valid-before="20200101" {public(mine)}\n',
        "git": f'alice namespaces="git" {public(mine)}\n',
        "behind-git": f'carol namespaces="git" {public(mine)}\nalice namespaces="qbtools" {public(mine)}\n',
        "nobody": "",
    }
    for name, text in lists.items():
        (place / name).write_text(text)
    (place / "secret").write_bytes(made.PASSPHRASE)
    (place / "secret").chmod(0o600)
    identity = place / "identity"
    subprocess.run(["age-keygen", "-o", identity], check=True, capture_output=True)
    recipient = subprocess.run(["age-keygen", "-y", identity], check=True, capture_output=True, text=True).stdout
    return Keys(place, mine, stranger, identity, recipient.strip())


def text(header: bytes, sealed: bytes, backup_id: str = made.ID) -> bytes:
    """The signed text, made independently."""
    digest = hashlib.sha256(header + sealed).hexdigest()
    return f"qb-signature 1\nbackup-id {backup_id}\nheader {digest}\n".encode()


def pieces(
    key: Path | None,
    more: str = "signed=ssh\n",
    backup_id: str = made.ID,
    wrapped: bytes = b"",
    namespace: str = "qbtools",
) -> Pieces:
    """A complete archive with a signature by key. wrapped: its wrapped passphrase."""
    pair = made.header_pair(made.header(backup_id, more=("key=True\n" if wrapped else "") + more))
    keys = [(KEY, wrapped)] if wrapped else []
    if key is not None:
        keys.append((SIGNATURE, signed(key, text(pair[0][1], pair[1][1], backup_id), namespace)))
    files = made.file("qubes.xml", made.content("xml", 10), backup_id) + made.file(NAME, DATA, backup_id)
    return [*pair, *keys, *files, made.manifest(files, backup_id)]


def changed(whole: Pieces, name: str, change: Callable[[bytes], bytes]) -> Pieces:
    return [(member, change(data) if member == name else data) for member, data in whole]


def without(whole: Pieces, name: str) -> Pieces:
    return [piece for piece in whole if piece[0] != name]


def one(whole: Pieces, name: str) -> tuple[str, bytes]:
    return next(piece for piece in whole if piece[0] == name)


def unsealed(archive: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
    return run("qb-unseal", *words, NAME, data=archive)


def with_passphrase(keys: Keys) -> list[str]:
    return ["--passphrase-file", keys.list("secret")]


def signers(keys: Keys, name: str = "list") -> list[str]:
    return ["--signers", keys.list(name)]


def check_refused(
    done: subprocess.CompletedProcess[bytes], status: int, message: str, program: str = "qb-unseal"
) -> None:
    """One line, perhaps a hint, and not a byte of the content."""
    lines = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (status, b""), lines
    assert lines[0].startswith(f"{program}: error: {message}"), lines
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: "))


# --- an archive by an accepted signer ---


def test_a_signed_archive_opens_with_and_without_a_list(keys: Keys) -> None:
    archive = made.archive(pieces(keys.mine))
    for words in (
        [],
        signers(keys),
        signers(keys, "behind-git"),
        [*signers(keys), "--signer", "alice"],
        ["--any-writer"],
    ):
        done = unsealed(archive, *with_passphrase(keys), *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, DATA, b"")
    done = unsealed(archive, *with_passphrase(keys), *signers(keys), "-v")
    assert f"qb-unseal: signed by the key {fingerprint(keys.mine)} of alice" in done.stderr.decode()


def test_the_variable_is_as_good_as_the_option(keys: Keys) -> None:
    for name, status in (("list", 0), ("nobody", 4)):
        done = run(
            "qb-unseal", *with_passphrase(keys), NAME, data=made.archive(pieces(keys.mine)), QB_SIGNERS=keys.list(name)
        )
        assert done.returncode == status, done.stderr
    nobody = keys.list("nobody")
    archive = made.archive(pieces(keys.mine))
    for words in (signers(keys), ["--any-writer"]):
        assert run("qb-unseal", *with_passphrase(keys), *words, NAME, data=archive, QB_SIGNERS=nobody).returncode == 0
    assert run("qb-unseal", "--structure", data=archive, QB_SIGNERS="/nowhere").returncode == 0


VERIFY = r"""tar -xf backup.qb backup-header backup-header.hmac qb-signature
id=$(sed -n 's/^backup-id=//p' backup-header)
sum=$(cat backup-header backup-header.hmac | sha256sum)
printf 'qb-signature 1\nbackup-id %s\nheader %s\n' "$id" "${sum%% *}" |
    ssh-keygen -Y verify -n qbtools -f signers -I alice -s qb-signature"""


def test_what_is_signed_can_be_checked_without_qbtools(keys: Keys, tmp_path: Path) -> None:
    for words in (["--sign", str(keys.mine)], ["--sign-command", f"ssh-keygen -q -Y sign -n qbtools -f {keys.mine}"]):
        sealing = ["qb-seal", "--opaque", "--logn", "10", *with_passphrase(keys), *words, NAME]
        done = run(*sealing, data=DATA)
        assert (done.returncode, done.stderr) == (0, b"")
        opened = unsealed(done.stdout, *with_passphrase(keys), *signers(keys))
        assert (opened.returncode, opened.stdout) == (0, DATA)
        (tmp_path / "backup.qb").write_bytes(done.stdout)
        (tmp_path / "signers").write_text(f"alice {public(keys.mine)}\n")
        checked = bash(f"cd {tmp_path}; {VERIFY}")
        assert (checked.returncode, checked.stdout.split()[:2]) == (0, [b"Good", b'"qbtools"'])


def test_an_archive_that_is_put_together_by_hand(keys: Keys, tmp_path: Path) -> None:
    common = f"--backup-id {made.ID} --logn 10 --passphrase-file {keys.list('secret')}"
    done = bash(
        f"""cd {tmp_path}; {{
        qb-header write {common} --sign {keys.mine}
        qb-seal {common} --opaque --record record {NAME} &&
        qb-manifest {common} record; }} >archive""",
        data=DATA,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    opened = unsealed((tmp_path / "archive").read_bytes(), *with_passphrase(keys), *signers(keys))
    assert (opened.returncode, opened.stdout) == (0, DATA)


def test_the_header_is_read_with_a_list_too(keys: Keys) -> None:
    whole = pieces(keys.mine)
    reading = ["qb-header", "read", *with_passphrase(keys), *signers(keys), "-"]
    done = run(*reading, data=made.archive(whole))
    assert (done.returncode, done.stderr) == (0, b"") and b"\nsigned=ssh\n" in done.stdout
    check_refused(run(*reading, data=made.archive(pieces(keys.stranger))), 4, "the archive is signed by", "qb-header")


# --- attacks of a stranger ---


def bigger(data: bytes) -> bytes:
    return data + bytes(65537 - len(data))


def edited(data: bytes) -> bytes:
    """Another chunk size in the plain header."""
    return data.replace(b"chunk-size=256", b"chunk-size=512")


def forged(keys: Keys, his: bool) -> Pieces:
    """Header and all chunks are made by an attacker, with the same ID, and with his own or the original signature."""
    header = made.header(more="signed=ssh\n")
    sealed = made.container(b"backup-header!" + made.PASSPHRASE, header, mark="his")
    signature = signed(keys.stranger, text(header, sealed)) if his else one(pieces(keys.mine), SIGNATURE)[1]
    files = made.file("qubes.xml", made.content("evil", 10)) + made.file(NAME, b"evil")
    pair = [("backup-header", header), ("backup-header.hmac", sealed)]
    return [*pair, (SIGNATURE, signature), *files, made.manifest(files)]


ATTACKS: dict[str, tuple[Callable[[Keys], Pieces], int, str]] = {
    "dropped": (
        lambda keys: without(pieces(keys.mine), SIGNATURE),
        *(4, "the archive has no signature, but its header promises one"),
    ),
    "dropped with its promise": (lambda keys: pieces(None, ""), 5, "the archive is not signed"),
    "promise dropped": (
        lambda keys: changed(pieces(keys.mine), "backup-header", lambda data: data.replace(b"signed=ssh\n", b"")),
        *(4, "qb-signature is in the archive, but its header promises no signature"),
    ),
    "doubled": (
        lambda keys: [*pieces(keys.mine)[:3], *pieces(keys.mine)[2:]],
        *(4, "qb-signature occurs twice"),
    ),
    "two, the stranger's first": (
        lambda keys: [*pieces(keys.stranger)[:3], *pieces(keys.mine)[2:]],
        *(4, "qb-signature occurs twice"),
    ),
    "behind a chunk": (
        lambda keys: [
            *without(pieces(keys.mine), SIGNATURE)[:3],
            one(pieces(keys.mine), SIGNATURE),
            *pieces(keys.mine)[4:],
        ],
        *(4, "the archive has no signature, but its header promises one"),
    ),
    "of another backup": (
        lambda keys: changed(
            pieces(keys.mine), SIGNATURE, lambda _data: one(pieces(keys.mine, backup_id=made.OTHER_ID), SIGNATURE)[1]
        ),
        *(4, "qb-signature is not a signature of this archive: Signature verification failed"),
    ),
    "by a key that is not listed": (lambda keys: pieces(keys.stranger), 4, "the archive is signed by the key SHA256:"),
    "of another namespace": (
        lambda keys: pieces(keys.mine, namespace="git"),
        *(4, "qb-signature was made for another use: its namespace is git, not qbtools"),
    ),
    "all exchanged, his signature": (
        lambda keys: forged(keys, his=True),
        4,
        "the archive is signed by the key SHA256:",
    ),
    "all exchanged, the old signature": (
        lambda keys: forged(keys, his=False),
        *(4, "qb-signature is not a signature of this archive"),
    ),
    "plain header edited": (
        lambda keys: changed(pieces(keys.mine), "backup-header", edited),
        *(4, "qb-signature is not a signature of this archive"),
    ),
    "sealed header exchanged": (
        lambda keys: changed(
            pieces(keys.mine), "backup-header.hmac", lambda _data: made.header_pair(edited(made.header()))[1][1]
        ),
        *(4, "qb-signature is not a signature of this archive"),
    ),
    "too long": (
        lambda keys: changed(pieces(keys.mine), SIGNATURE, bigger),
        *(4, "qb-signature is too long: 65537 bytes"),
    ),
    "as long as it may be": (
        lambda keys: changed(pieces(keys.mine), SIGNATURE, lambda data: bigger(data)[:65536]),
        *(4, "qb-signature is not an SSH signature"),
    ),
    "empty": (
        lambda keys: changed(pieces(keys.mine), SIGNATURE, lambda data: b""),
        4,
        "qb-signature is not an SSH signature",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack(attack: str, keys: Keys) -> None:
    make, status, message = ATTACKS[attack]
    archive = made.archive(make(keys))
    check_refused(unsealed(archive, *with_passphrase(keys), *signers(keys)), status, message)


@pytest.mark.parametrize(
    "attack", ["dropped", "promise dropped", "doubled", "two, the stranger's first", "behind a chunk"]
)
def test_the_promises_of_the_header_are_checked_without_a_list_too(attack: str, keys: Keys) -> None:
    make, status, message = ATTACKS[attack]
    archive = made.archive(make(keys))
    check_refused(unsealed(archive, *with_passphrase(keys)), status, message)
    check_refused(run("qb-unseal", "--structure", data=archive), status, message)


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("expired", 5, "the archive is signed by the key SHA256:"),
        ("git", 4, "the archive is signed by the key SHA256:"),
        ("nobody", 4, "the archive is signed by the key SHA256:"),
        ("nothing", 1, "cannot read the list of signers"),
    ],
)
def test_a_list_that_does_not_have_the_key(name: str, status: int, message: str, keys: Keys) -> None:
    check_refused(
        unsealed(made.archive(pieces(keys.mine)), *with_passphrase(keys), *signers(keys, name)), status, message
    )


def test_a_key_that_counted_when_the_archive_was_made(keys: Keys) -> None:
    archive, expired = made.archive(pieces(keys.mine)), [*with_passphrase(keys), *signers(keys, "expired")]
    done = unsealed(archive, *expired)
    assert (done.returncode, done.stdout) == (5, b"") and b"hint: " in done.stderr and b"--signers-time" in done.stderr
    assert unsealed(archive, *expired, "--signers-time", "20191224").stdout == DATA
    check_refused(unsealed(archive, *expired, "--signers-time", "20200102"), 5, "the archive is signed by the key")
    # The archive says when it was made, and that does not count.
    assert made.ID.startswith("2026")


def test_another_signer_is_wanted(keys: Keys) -> None:
    archive = made.archive(pieces(keys.mine))
    done = unsealed(archive, *with_passphrase(keys), *signers(keys), "--signer", "bob")
    key = f"the archive is signed by the key {fingerprint(keys.mine)}"
    check_refused(done, 4, f"{key}, which is not listed in {keys.list('list')} for bob")


def test_an_archive_of_version_3(keys: Keys, tmp_path: Path) -> None:
    """With or without a signature, an archive without its sealed header is refused before a passphrase is needed."""
    need("openssl")
    maker = Maker(tmp_path)
    stripped = without(pieces(keys.mine), SIGNATURE)
    stripped[:2] = [("backup-header", maker.header()), ("backup-header.hmac", maker.hmac(maker.header()))]
    check_refused(
        unsealed(made.archive(stripped), *signers(keys)), 5, "the archive has version 3, which cannot be signed"
    )


# --- a passphrase that came out of the archive ---


def wrapped(keys: Keys, passphrase: bytes = made.PASSPHRASE) -> bytes:
    words = ["age", "-r", keys.recipient]
    return subprocess.run(words, input=passphrase, check=True, capture_output=True).stdout


def with_identity(keys: Keys) -> list[str]:
    return ["-i", str(keys.identity)]


def test_a_forged_archive_for_the_same_recipient(keys: Keys) -> None:
    """Somebody who knows the public key makes a valid archive, but it is not signed by a signer."""
    evil = made.archive(pieces(keys.stranger, wrapped=wrapped(keys)))
    check_refused(unsealed(evil, *with_identity(keys), *signers(keys)), 4, "the archive is signed by the key SHA256:")
    check_refused(unsealed(evil, *with_identity(keys)), 5, "nothing proves who wrote the archive")
    bare = made.archive(pieces(None, "", wrapped=wrapped(keys)))
    check_refused(unsealed(bare, *with_identity(keys), *signers(keys)), 5, "the archive is not signed")
    check_refused(unsealed(bare, *with_identity(keys)), 5, "nothing proves who wrote the archive")
    assert unsealed(bare, *with_identity(keys), "--any-writer").stdout == DATA


OPENING = [
    *(
        "qb-unseal NAME",
        "qb-unseal --stop NAME",
        "qb-unseal --list",
        "qb-unseal --verify",
        "qb-unseal --to-command cat",
    ),
    *("qb-unseal --to-command cat --first cat --routes /dev/null", "qb-header read -", "qb-header read --json -"),
    *("qb-backup list", "qb-backup verify", "qb-backup restore --to TO", "qb-backup restore --host dir:TO --yes"),
]


@pytest.mark.parametrize("words", OPENING)
def test_every_program_holds_to_it(words: str, keys: Keys, tmp_path: Path) -> None:
    archive = made.archive(pieces(keys.stranger, wrapped=wrapped(keys)))
    (tmp_path / "to").mkdir()
    argv = [*shlex.split(words.replace("NAME", NAME).replace("TO", str(tmp_path / "to"))), *with_identity(keys)]
    program = argv[0].replace("backup", "unseal")
    check_refused(run(*argv, data=archive), 5, "nothing proves who wrote the archive", program)
    check_refused(run(*argv, *signers(keys), data=archive), 4, "the archive is signed by the key SHA256:", program)
    assert not list((tmp_path / "to").iterdir())


def test_a_passphrase_from_a_command_does_not_prove_the_writer(keys: Keys) -> None:
    whole = [
        ("qb-key.command", made.PASSPHRASE) if name == KEY else (name, data)
        for name, data in pieces(None, "", wrapped=b"x")
    ]
    archive = made.archive(whole)
    check_refused(unsealed(archive, "--key-command", "cat"), 5, "nothing proves who wrote the archive")
    assert unsealed(archive, "--key-command", "cat", "--any-writer").stdout == DATA


def test_a_typed_passphrase_proves_the_writer(keys: Keys) -> None:
    stretched = made.container(b"qb-key!typed", made.PASSPHRASE)
    whole = [
        ("qb-key.scrypt", stretched) if name == KEY else (name, data) for name, data in pieces(None, "", wrapped=b"x")
    ]
    (keys.place / "typed").write_text("typed")
    (keys.place / "typed").chmod(0o600)
    assert unsealed(made.archive(whole), "--passphrase-file", keys.list("typed")).stdout == DATA
    # And one that was taken out of the archive by hand is as good as any.
    assert unsealed(made.archive(pieces(None, "", wrapped=wrapped(keys))), *with_passphrase(keys)).stdout == DATA


def test_the_new_way_to_save_opens_with_a_list(keys: Keys) -> None:
    sealing = ["qb-seal", "--opaque", "-r", keys.recipient, "--sign", str(keys.mine), NAME]
    done = run(*sealing, data=DATA)
    assert (done.returncode, done.stderr) == (0, b"")
    assert unsealed(done.stdout, *with_identity(keys), *signers(keys)).stdout == DATA
    check_refused(unsealed(done.stdout, *with_identity(keys)), 5, "nothing proves who wrote the archive")


# --- a signature that cannot be made leaves no archive ---


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ("--sign /nowhere", 1, "cannot read the signing key /nowhere: No such file or directory"),
        ("--sign LIST", 1, "cannot sign with "),
        ("--sign-command false", 1, "the sign command ended with status 1"),
        ("--sign-command cat", 1, "the sign command printed no valid signature"),
        ("--sign-command 'kill -KILL $$'", 1, "the sign command was killed by SIGKILL"),
        ("--sign-command ''", 2, "--sign-command: the command is empty"),
        ("--sign ''", 2, "--sign: the name is empty"),
        ("--sign MINE --sign-command cat", 2, "--sign and --sign-command exclude each other"),
        ("--sign MINE --backup-id 1", 2, "only a complete archive is signed"),
    ],
)
def test_no_signature_no_archive(words: str, status: int, message: str, keys: Keys) -> None:
    argv = shlex.split(words.replace("LIST", keys.list("list")).replace("MINE", str(keys.mine)))
    done = run("qb-seal", "--opaque", "--logn", "10", *with_passphrase(keys), *argv, NAME, data=DATA)
    check_refused(done, status, message, "qb-seal")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--signers ''", "--signers: the name is empty"),
        ("--signers LIST --signer ''", "--signer: the name is empty"),
        ("--signer alice", "--signer needs --signers"),
        ("--signers-time 20200101", "--signers-time needs --signers"),
        ("--signers LIST --signers-time yesterday", "--signers-time: not a time"),
        ("--signers LIST --any-writer", "--any-writer and --signers exclude each other"),
        ("--structure --signers LIST", "--signers does not go with --structure"),
        ("--structure --key-command cat", "--key-command does not go with --structure"),
        ("--structure --any-writer", "--any-writer does not go with --structure"),
    ],
)
def test_options_that_do_not_go_together(words: str, message: str, keys: Keys) -> None:
    argv = shlex.split(words.replace("LIST", keys.list("list")))
    name = [] if "--structure" in words else [NAME]
    check_refused(run("qb-unseal", *argv, *name, data=b""), 2, message)


def test_a_key_with_a_passphrase_is_unlocked_at_the_terminal(keys: Keys, tmp_path: Path) -> None:
    key = make_key(tmp_path / "key", passphrase="open sesame")
    (tmp_path / "list").write_text(f"alice {public(key)}\n")
    (tmp_path / "data").write_bytes(DATA)
    text = f"qb-seal --opaque --logn 10 {shlex.join(with_passphrase(keys))} --sign {key} {NAME} <{tmp_path}/data"
    with Terminal("bash", "-c", text) as terminal:
        terminal.expect(b"passphrase")
        terminal.type(b"open sesame\n")
        done = terminal.finish()
    assert (done.returncode, done.stderr) == (0, b"")
    assert unsealed(done.stdout, *with_passphrase(keys), "--signers", str(tmp_path / "list")).stdout == DATA
    without_terminal = run(*shlex.split(text.rpartition(" <")[0]), data=DATA)
    check_refused(without_terminal, 1, f"cannot sign with {key}: ", "qb-seal")
    with Agent(key_without_passphrase(key)) as agent:
        signing = shlex.split(text.rpartition(" <")[0].replace(str(key), f"{key}.pub"))
        assert run(*signing, data=DATA, SSH_AUTH_SOCK=agent.socket).returncode == 0


def key_without_passphrase(key: Path) -> Path:
    words = ["ssh-keygen", "-q", "-p", "-P", "open sesame", "-N", "", "-f", str(key)]
    subprocess.run(words, check=True, capture_output=True)
    return key
