"""qb-key with real age, ssh-keygen and scrypt: shows, lists, replaces and checks what opens an archive."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from devices import tmpfs
from running import Running, kill
from signing import fingerprint, make_key, public
from support import BIN, bash, cheap_programs, environment, need, run
from terminal import Terminal

KEYS = ("qb-key.age", "qb-key.scrypt", "qb-key.command")
NO_KEY = (
    "qb-key: error: the archive has no wrapped passphrase:"
    " its chunks are sealed with the passphrase that somebody typed\n"
    "hint: only a new backup can have another one\n"
)
SECRET = b"correct horse"


@pytest.fixture(autouse=True, scope="module")
def cheap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """To wrap a passphrase takes a second, and to unwrap it too; tests/peers/test_age.py uses the real programs."""
    with cheap_programs(tmp_path_factory.mktemp("cheap")):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Identities old, new, ssh, rsa; passphrases; archives: for old, for all kinds of keys, for a typed passphrase."""
    need("age", "age-keygen", "ssh-keygen")
    place = tmp_path_factory.mktemp("keys")
    for name, text in (("passphrase", "typed before"), ("second", "typed now"), ("wrong", "wrong")):
        (place / name).write_text(f"{text}\n")
        (place / name).chmod(0o600)
    made = bash(
        f"""cd {place}; head -c 3M /dev/urandom >data; for k in old new; do age-keygen -o $k && age-keygen -y $k >$k.pub
        done 2>/dev/null; ssh-keygen -q -t ed25519 -N '' -C '' -f ssh; ssh-keygen -q -t rsa -b 2048 -N '' -C '' -f rsa
        seal="qb-seal --opaque --logn 10 --chunk-size 256K vm1/data"
        $seal -R old.pub <data >old.qb && $seal --passphrase-file passphrase <data >none.qb &&
        $seal -R old.pub -R ssh.pub -R rsa.pub --key-command 'tr a-z2-7 2-7a-z' --wrap-passphrase \
            --passphrase-file passphrase <data >all.qb"""
    )
    assert (made.returncode, made.stderr) == (0, b"")
    return place


def key(folder: Path, text: str, data: bytes = b"", **changes: str) -> subprocess.CompletedProcess[bytes]:
    return bash(f"cd {shlex.quote(str(folder))} && {text}", data=data, **changes)


def good(folder: Path, text: str, data: bytes = b"", **changes: str) -> bytes:
    done = key(folder, text, data, **changes)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def fails(folder: Path, text: str, status: int, stderr: str, data: bytes = b"", **changes: str) -> None:
    """The command ends with status, says stderr, and prints nothing."""
    done = key(folder, text, data, **changes)
    assert (done.returncode, done.stderr.decode(), done.stdout) == (status, stderr, b"")


def members(archive: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(archive) as tar:
        return [(info.name, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]


def raw(archive: Path) -> tuple[bytes, bytes]:
    """The bytes before and behind the key members, as they are in the file."""
    with tarfile.open(archive) as tar:
        found = tar.getmembers()
        inside = [at for at, info in enumerate(found) if info.name in KEYS]
        data = archive.read_bytes()
        return data[: found[inside[0]].offset], data[found[inside[-1] + 1].offset :]


def opens(folder: Path, words: str, archive: str) -> int:
    """The status of opening it; 0 only if the data is right."""
    text = f"qb-unseal --any-writer {words} vm1/data <{archive} | cmp - data"
    return key(folder, text + '; s=("${PIPESTATUS[@]}"); exit $((s[0] ? s[0] : s[1]))').returncode


# --- rewrap ---


def test_for_another_recipient(folder: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.qb"
    good(folder, f"qb-key rewrap -i old -R new.pub <old.qb >{new}")
    assert opens(folder, "-i new", str(new)) == 0
    done = key(folder, f"qb-unseal --any-writer -i old --verify <{new}")
    assert done.returncode == 3 and b"no identity opens qb-key.age: age: no identity matched" in done.stderr
    assert raw(new) == raw(folder / "old.qb")
    assert [name for name, _data in members(new)] == [name for name, _data in members(folder / "old.qb")]


def test_to_everything_and_back(folder: Path, tmp_path: Path) -> None:
    """Each kind of wrap opens the archive for each other kind."""
    shutil.copy(folder / "old.qb", tmp_path / "0.qb")
    steps = [
        ("-i old", '-r $(cat new.pub) -r "$(cat ssh.pub)" -R rsa.pub', "-i ssh"),
        ("-i rsa", "--new-key-command 'tr a-z2-7 2-7a-z'", "--key-command 'tr 2-7a-z a-z2-7'"),
        (
            "--key-command 'tr 2-7a-z a-z2-7'",
            "--any-writer --wrap-passphrase --new-passphrase-file second",
            "--passphrase-file second",
        ),
        ("--passphrase-file second", "-R old.pub", "-i old"),
    ]
    for at, (old, new, then) in enumerate(steps):
        good(folder, f"qb-key rewrap {old} {new} <{tmp_path}/{at}.qb >{tmp_path}/{at + 1}.qb")
        assert opens(folder, then, f"{tmp_path}/{at + 1}.qb") == 0
        assert raw(tmp_path / f"{at + 1}.qb") == raw(folder / "old.qb")
        assert key(folder, f"qb-unseal --any-writer --list {old} <{tmp_path}/{at + 1}.qb").returncode in (2, 3)
    assert good(folder, f"qb-key list -q <{tmp_path}/4.qb") == b"qb-key.age\tX25519\n"


def test_all_at_once(folder: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.qb"
    words = "-R new.pub -R ssh.pub --new-key-command base64 --wrap-passphrase --new-passphrase-command 'cat second'"
    good(folder, f"qb-key rewrap --passphrase-file passphrase {words} <all.qb >{new}")
    for how in ("-i new", "-i ssh", "--key-command 'base64 -d'", "--passphrase-file second"):
        assert opens(folder, how, str(new)) == 0
    for how in ("-i old", "--passphrase-file passphrase"):
        assert opens(folder, how, str(new)) == 3
    assert raw(new) == raw(folder / "all.qb")
    assert [name for name, _data in members(new)][2:5] == list(KEYS)


def test_in_a_pipe_from_and_to_files(folder: Path, tmp_path: Path) -> None:
    first = good(folder, f"qb-key rewrap -i old -R old.pub <old.qb >{tmp_path}/1; cat {tmp_path}/1")
    second = good(folder, "cat old.qb | qb-key rewrap -i old -R old.pub | cat")
    third = good(folder, f"cat old.qb | qb-key rewrap -i old -R old.pub | qb-store {tmp_path}/3; cat {tmp_path}/3")
    assert len({first, second, third}) == 3, "age makes another file each time"
    assert len({len(first), len(second), len(third)}) == 1
    assert opens(folder, "-i old", f"{tmp_path}/3") == 0


def test_with_the_passphrase_itself(folder: Path, tmp_path: Path) -> None:
    """A user who kept the output of qb-key show needs no identity any more."""
    good(folder, f"qb-key show --any-writer -i old <old.qb >{tmp_path}/kept && chmod 600 {tmp_path}/kept")
    good(folder, f"qb-key rewrap --passphrase-file {tmp_path}/kept -R new.pub <old.qb >{tmp_path}/new.qb")
    assert opens(folder, "-i new", f"{tmp_path}/new.qb") == 0


def test_both_passphrases_are_read_from_descriptors(folder: Path, tmp_path: Path) -> None:
    words = "--passphrase-fd 8 --wrap-passphrase --new-passphrase-fd 9 8<passphrase 9<second"
    good(folder, f"qb-key rewrap {words} <all.qb >{tmp_path}/new.qb")
    assert opens(folder, "--passphrase-file second", f"{tmp_path}/new.qb") == 0


def test_the_environment_is_that_of_the_old_passphrase(folder: Path) -> None:
    hint = "use --new-passphrase-file, --new-passphrase-fd or --new-passphrase-command"
    said = f"qb-key: error: no new passphrase, and no terminal to ask for one\nhint: {hint}\n"
    fails(folder, "qb-key rewrap --wrap-passphrase <all.qb", 2, said, QB_PASSPHRASE_FILE="passphrase")


def test_a_terminal_is_asked_for_both(folder: Path, tmp_path: Path) -> None:
    text = f"cd {folder} && qb-key rewrap --wrap-passphrase <all.qb >{tmp_path}/new.qb"
    with Terminal("bash", "-c", text) as terminal:
        for prompt, typed in (
            (b"passphrase: ", b"typed before"),
            (b"new passphrase: ", SECRET),
            (b"new passphrase again: ", SECRET.upper()),
            (b"the two passphrases differ", b""),
            (b"new passphrase: ", SECRET),
            (b"new passphrase again: ", SECRET),
        ):
            terminal.expect(prompt)
            assert not typed or not terminal.echoes()
            if typed:
                terminal.said = b""
                terminal.type(typed + b"\n")
        done = terminal.finish()
        assert terminal.echoes()
    assert (done.returncode, done.stderr) == (0, b"")
    assert key(folder, f"qb-unseal --passphrase-fd 3 --verify 3<<<'correct horse' <{tmp_path}/new.qb").returncode == 0


def test_binary_data_is_not_written_to_a_terminal(folder: Path) -> None:
    with Terminal("bash", "-c", f"cd {folder} && exec qb-key rewrap -i old -R new.pub <old.qb >/dev/tty") as terminal:
        done = terminal.finish()
    assert (done.returncode, terminal.said) == (2, b"")
    assert done.stderr.startswith(b"qb-key: error: refusing to write binary data to a terminal\n")


def test_an_archive_that_a_typed_passphrase_opens(folder: Path) -> None:
    """Before anything is asked for."""
    fails(folder, "qb-key rewrap -R new.pub <none.qb", 5, NO_KEY)
    fails(folder, "qb-key rewrap -i old -R new.pub <none.qb", 5, NO_KEY)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("-i new", 3, "no identity opens qb-key.age: age: no identity matched any of the recipients"),
        ("-i none", 1, "cannot read the identity none: No such file or directory"),
        ("--key-command cat", 2, "--key-command: the archive has no qb-key.command"),
        ("--passphrase-file wrong", 3, "the passphrase is wrong"),
        ("-i old --expect-id other", 5, "the archive has the backup ID"),
        ("-i old --passphrase-file wrong", 2, "--identity and --passphrase-file exclude each other"),
        ("-i old -i ''", 2, "--identity: the name is empty"),
        ("-i old -r ''", 2, "--recipient: the recipient is empty"),
        ("-i AGE-SECRET-KEY-1XYZ", 2, "--identity: this is an identity, not the file that holds it"),
        ("-i old -r age-secret-key-1xyz", 2, "--recipient: this is an identity, not a recipient"),
        ("-i old -R -", 2, "--recipients-file: standard input is taken"),
        ("-i old -r age1none", 1, "cannot wrap the passphrase: age: "),
        ("-i old -R none", 1, "cannot read the recipients file none: No such file or directory"),
        ("-i old --new-key-command 'exit 7'", 1, "the key command ended with status 7"),
        ("-i old --new-key-command :", 1, "the key command printed nothing"),
        ("-i old --new-key-command 'head -c 70000 /dev/zero'", 5, "the key command printed more than 65536 bytes"),
        ("-i old --new-key-command ''", 2, "--new-key-command: the command is empty"),
        ("-i old --new-passphrase-file second", 2, "--new-passphrase-file needs --wrap-passphrase"),
        (
            "-i old --any-writer --wrap-passphrase --new-passphrase-file none",
            1,
            "cannot read the passphrase from none: No such ",
        ),
        ("-i old --any-writer --wrap-passphrase --new-passphrase-file /dev/null", 5, "the passphrase is empty"),
        ("-i old --any-writer --wrap-passphrase --new-passphrase-fd x", 2, "--new-passphrase-fd: not a descriptor: x"),
        (
            "-i old --any-writer --wrap-passphrase --new-passphrase-fd 7 --new-passphrase-file second",
            2,
            "--new-passphrase-file, --new-passphrase-fd and --new-passphrase-command exclude each other",
        ),
    ],
)
def test_what_leaves_no_archive(words: str, status: int, said: str, folder: Path) -> None:
    done = key(folder, f"qb-key rewrap -R new.pub {words} <old.qb")
    assert (done.returncode, done.stdout) == (status, b"")
    assert done.stderr.decode().startswith(f"qb-key: error: {said}")
    assert done.stderr.count(b"error: ") == 1


def test_new_wraps_are_needed(folder: Path) -> None:
    hint = "hint: use -r, -R, --new-key-command or --wrap-passphrase\n"
    fails(
        folder, "qb-key rewrap -i old <old.qb", 2, f"qb-key: error: nothing is given that wraps the passphrase\n{hint}"
    )


@pytest.mark.parametrize(
    "words", ["show -R new.pub", "show --json", "list -i old", "list --wrap-passphrase", "rewrap --json"]
)
def test_options_of_another_command(words: str, folder: Path) -> None:
    done = key(folder, f"qb-key {words} <old.qb")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b" does not go with the other arguments\n" in done.stderr


def test_no_age(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "python3").symlink_to(shutil.which("python3") or "")
    (tmp_path / "cat").symlink_to("/bin/cat")
    path = f"{BIN}:{tmp_path}"
    said = "qb-key: error: the program age is not installed\nhint: install age: https://age-encryption.org\n"
    bash_path = shutil.which("bash")
    for words in (
        "show --any-writer -i old <old.qb",
        "rewrap -i old -R new.pub <old.qb",
        "rewrap --passphrase-file passphrase -R new.pub <all.qb",
    ):
        done = run(str(bash_path), "-c", f"cd {folder} && /usr/bin/env PATH={path} {BIN}/qb-key {words}")
        assert (done.returncode, done.stderr.decode(), done.stdout) == (1, said, b"")


# --- receipts ---


def test_the_receipt_stays(folder: Path, tmp_path: Path) -> None:
    """Rewrapping changes nothing that a receipt names. The archive is also compared with it while it is copied."""
    good(folder, f"qb-seal --opaque --logn 10 -R old.pub --receipt {tmp_path}/receipt vm1/data <data >{tmp_path}/a.qb")
    good(folder, f"qb-seal --opaque --logn 10 -R old.pub --receipt {tmp_path}/other vm1/data <data >/dev/null")
    for at, words in enumerate(("", "--expect receipt")):
        good(tmp_path, f"qb-key rewrap -i {folder}/old -R {folder}/new.pub {words} <a.qb >{at}.qb")
        good(tmp_path, f"qb-unseal --structure --expect receipt <{at}.qb")
        good(tmp_path, f"qb-unseal --verify -i {folder}/new --expect receipt <{at}.qb")
        assert raw(tmp_path / f"{at}.qb") == raw(tmp_path / "a.qb")
    assert good(tmp_path, f"qb-key show -i {folder}/old --expect receipt <a.qb")
    data = bytearray((tmp_path / "a.qb").read_bytes())
    data[-9000] ^= 1
    changed = key(tmp_path, f"qb-key rewrap -i {folder}/old -R {folder}/new.pub --expect receipt", bytes(data))
    said = "qb-key: error: the content of the archive differs from the receipt\n"
    assert (changed.returncode, changed.stderr.decode()) == (4, said)
    stored = run("qb-store", tmp_path / "stored.qb", data=changed.stdout)
    assert stored.returncode == 4 and not (tmp_path / "stored.qb").exists()
    for command in ("show", "rewrap -r x"):
        done = key(tmp_path, f"qb-key {command} -i {folder}/old --expect other <a.qb")
        assert (done.returncode, done.stdout) == (5, b"") and b" as the receipt says\n" in done.stderr


# --- incomplete or wrong input ---


def test_what_is_cut(folder: Path) -> None:
    data = (folder / "old.qb").read_bytes()
    whole = good(folder, "qb-key rewrap -i old -R old.pub <old.qb")
    first = whole.index(b"vm1/data.000.enc")
    for size in (0, 600, 1700, 2300, first, first + 600, len(data) // 2, len(data) - 1100, len(data) - 1536):
        done = key(folder, "qb-key rewrap -i old -R old.pub", data=data[:size])
        assert done.returncode == 4 and done.stderr.count(b"\n") == 1
        assert (done.stdout == b"") == (size < first)
        assert done.stdout[first:] == data[first:size]


def test_what_is_damaged(folder: Path) -> None:
    """Damage that the structure shows, without opening chunks."""
    data = (folder / "old.qb").read_bytes()
    first = data.index(b"vm1/data.000.enc")
    for change, said in (
        (data + b"more", "something follows the end of the archive"),
        (data + data, "something follows the end of the archive"),
        (data[:first] + bytes(512) + data[first + 512 :], "a number in a tar header is malformed"),
        (data.replace(b"vm1/data.001.enc", b"vm1/data.002.enc", 1), "a tar header has a wrong checksum"),
    ):
        done = key(folder, "qb-key rewrap -i old -R old.pub", data=change)
        assert (done.returncode, done.stderr.decode()) == (4, f"qb-key: error: {said}\n")


@pytest.mark.parametrize("command", ["show --any-writer", "rewrap -R new.pub"])
def test_hostile_beginnings(command: str, folder: Path) -> None:
    """Nothing is written if the archive cannot be opened."""
    data = (folder / "old.qb").read_bytes()
    (begun, _rest), blob = raw(folder / "old.qb"), dict(members(folder / "old.qb"))["qb-key.age"]
    block = data[len(begun) : data.index(b"vm1/data.000.enc")]
    none = b"the archive has no wrapped passphrase, but its header promises one"
    for change, said in (
        (data.replace(block, b"", 1), none),
        (data.replace(block, block * 2, 1), b"qb-key.age occurs twice"),
        (data.replace(blob, bytes(len(blob)), 1), b"qb-key.age is not an age file"),
        (data.replace(b"chunk-size=262144", b"chunk-size=262145", 1), b"backup-header differs from its sealed copy"),
    ):
        assert change != data
        done = key(folder, f"qb-key {command} -i old", data=change)
        assert (done.returncode, done.stdout) == (4, b"")
        assert done.stderr.startswith(b"qb-key: error: " + said)


@pytest.mark.parametrize("command", ["list", "check --signers signers"])
def test_a_header_that_is_not_sealed(command: str, signed: Path) -> None:
    data = (signed / "signed.qb").read_bytes()
    said = "qb-key: error: backup-header.hmac is not an scrypt container\n"
    fails(signed, f"qb-key {command}", 4, said, data.replace(b"scrypt\0", b"xcrypt\0", 1))


def test_a_key_of_another_archive(folder: Path, tmp_path: Path) -> None:
    good(folder, f"qb-seal --opaque --logn 10 -R old.pub x <data >{tmp_path}/other.qb")
    other, blob = dict(members(tmp_path / "other.qb")), dict(members(folder / "old.qb"))["qb-key.age"]
    data = (folder / "old.qb").read_bytes().replace(blob, other["qb-key.age"], 1)
    said = "qb-key: error: the passphrase in qb-key.age does not open the archive\n"
    fails(folder, "qb-key show --any-writer -i old", 4, said, data)
    fails(folder, "qb-key rewrap -i old -R new.pub", 4, said, data)


@pytest.mark.parametrize("command", ["show -i old", "list", "rewrap -i old -R new.pub", "check --signers old.pub"])
def test_no_archive(command: str, folder: Path) -> None:
    empty = "the archive is empty: did the program before fail?"
    for data, said in ((b"", empty), (b"no archive\n" * 100, "the archive is not a sealed archive")):
        fails(folder, f"qb-key {command}", 4, f"qb-key: error: {said}\n", data)


def test_no_room(folder: Path, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", 1 << 20) as small:
        done = key(folder, f"qb-key rewrap -i old -R new.pub <old.qb >{small}/new.qb")
    assert done.returncode == 1
    assert done.stderr == b"qb-key: error: cannot copy the archive to standard output: No space left on device\n"
    full = "No space left on device"
    fails(
        folder,
        "qb-key show --any-writer -i old <old.qb >/dev/full",
        1,
        f"qb-key: error: cannot write to standard output: {full}\n",
    )
    fails(folder, "qb-key list -q <old.qb >/dev/full", 1, f"qb-key: error: cannot write to standard output: {full}\n")


def test_a_reader_that_leaves(folder: Path) -> None:
    for reader in ("true", "head -c 100000 >/dev/null"):
        text = f"qb-key rewrap -i old -R new.pub <old.qb | {reader}; echo ${{PIPESTATUS[0]}} >&2"
        assert key(folder, text).stderr == b"141\n"


@pytest.fixture
def running(folder: Path, tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path, folder, OUT=str(tmp_path)) as made:
        yield made


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_killed(number: signal.Signals, running: Running, tmp_path: Path) -> None:
    """Its output does not look complete."""
    running.start("cat old.qb | valve 1500000 | qb-key rewrap -i old -R new.pub | qb-store $OUT/new.qb")
    running.hold()
    kill(running.one("qb-key"), number)
    running.release()
    status, stderr = running.end()
    assert status in (4, 128 + number) and "qb-store: error: the archive ends " in stderr
    assert not (tmp_path / "new.qb").exists()


def test_a_sender_that_is_killed(running: Running, tmp_path: Path) -> None:
    running.start("cat old.qb | valve 1500000 | qb-key rewrap -i old -R new.pub >$OUT/new.qb")
    running.hold()
    kill(running.one("valve"), signal.SIGKILL)
    status, stderr = running.end()
    assert status == 4 and stderr.startswith("qb-key: error: the archive ends in the middle of vm1/data.0")
    looked = run("qb-unseal", "--structure", data=(tmp_path / "new.qb").read_bytes())
    assert looked.returncode == 4


def test_nothing_of_a_secret_is_seen(running: Running, folder: Path, tmp_path: Path) -> None:
    """Not in an argument, not in an environment, and not in a core dump."""
    secret = good(folder, "qb-key show --any-writer -i old <old.qb").strip()
    rewrap = "qb-key rewrap -i old --new-key-command 'tr a-z2-7 2-7a-z'"
    running.start(f"ulimit -c unlimited; cat old.qb | valve 1500000 | {rewrap} >$OUT/new.qb")
    running.hold()
    for pid in running.processes():
        for what in ("cmdline", "environ"):
            try:
                assert secret not in Path(f"/proc/{pid}/{what}").read_bytes()
            except OSError:
                continue
    limits = Path(f"/proc/{running.one('qb-key')}/limits").read_text()
    assert re.search(r"Max core file size +0 ", limits)
    running.release()
    assert running.end()[0] == 0
    assert secret not in (tmp_path / "new.qb").read_bytes()


# --- show ---


def test_show(folder: Path) -> None:
    shown = good(folder, "qb-key show --any-writer -i old <old.qb")
    assert re.fullmatch(rb"[a-z2-7]{52}\n", shown)
    assert shown == good(folder, "age -d -i old <(tar -xOf old.qb qb-key.age)") + b"\n"
    for how in ("-i ssh", "-i rsa", "--key-command 'tr 2-7a-z a-z2-7'", "--passphrase-file passphrase"):
        assert good(folder, f"qb-key show --any-writer {how} <all.qb") == good(
            folder, "qb-key show --any-writer -i old <all.qb"
        )
    found = "qb-header read --any-writer -i old old.qb | sed -n s/backup-id=//p"
    assert good(folder, f"qb-key show --any-writer -i old --expect-id $({found}) <old.qb")


def test_the_header_is_enough(folder: Path) -> None:
    data = (folder / "old.qb").read_bytes()
    end = data.index(b"vm1/data.000.enc")
    assert good(folder, "qb-key show --any-writer -i old", data=data[:end]) == good(
        folder, "qb-key show --any-writer -i old <old.qb"
    )


def test_scrypt_and_tar_open_it_then(folder: Path, tmp_path: Path) -> None:
    need("scrypt")
    good(folder, f"tar -C {tmp_path} -xf old.qb")
    identity = (tmp_path / "backup-header").read_text().partition("backup-id=")[2].partition("\n")[0]
    text = f"""P=$(qb-key show --any-writer -i old <old.qb); cd {tmp_path}; : >all; for n in vm1/data.*.enc; do
        scrypt dec -fP "$n" <<<"{identity}!${{n%.enc}}!$P" >>all || exit; done; cmp all {folder}/data"""
    good(folder, text)


def test_show_what_a_typed_passphrase_opens(folder: Path) -> None:
    assert good(folder, "qb-key show --passphrase-file passphrase <none.qb") == b"typed before\n"
    done = key(folder, "qb-key show --passphrase-file wrong <none.qb")
    assert (done.returncode, done.stdout) == (3, b"")


def test_show_on_a_terminal(folder: Path) -> None:
    with Terminal("bash", "-c", f"cd {folder} && exec qb-key show --any-writer -i old <old.qb >/dev/tty") as terminal:
        done = terminal.finish()
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.fullmatch(rb"[a-z2-7]{52}\r\n", terminal.said)


def test_a_passphrase_that_a_terminal_would_obey(folder: Path, tmp_path: Path) -> None:
    """Everybody who knows a recipient can wrap any text."""
    from qbtools.formats import header
    from qbtools.formats.containerhead import Parameters
    from qbtools.formats.sealer import Settings, beginning

    bad = b"pass\x1b[2Jphrase"
    blob = subprocess.run(["age", "-R", folder / "old.pub"], input=bad, capture_output=True, check=True).stdout
    settings = Settings("q", parameters=Parameters(10))
    made = beginning(bad, header.new_header("q", "gzip", 1 << 20, key=True), settings, [("qb-key.age", blob)])
    (tmp_path / "bad.qb").write_bytes(made)
    assert good(folder, f"qb-key show --any-writer -i old <{tmp_path}/bad.qb") == bad + b"\n"
    with Terminal(
        "bash", "-c", f"cd {folder} && exec qb-key show --any-writer -i old <{tmp_path}/bad.qb >/dev/tty"
    ) as terminal:
        done = terminal.finish()
    said = b"qb-key: error: the passphrase holds a control character: a terminal would obey it\n"
    assert (done.returncode, terminal.said) == (5, b"") and done.stderr.startswith(said)


def test_a_key_that_a_person_made(folder: Path, tmp_path: Path) -> None:
    """printf, age, tar and qb-header's pieces: an age file of a made passphrase is read whoever made it."""
    good(
        folder,
        f"""P=$(qb-key show --any-writer -i old <old.qb); cd {tmp_path}; tar -xf {folder}/old.qb
        printf %s "$P" | age -a -R {folder}/new.pub >qb-key.age
        tar -cf new.qb --format ustar backup-header backup-header.hmac qb-key.age vm1/data.*.enc qb-manifest.000.enc""",
    )
    assert opens(folder, "-i new", f"{tmp_path}/new.qb") == 0
    good(folder, f"qb-key rewrap -i new -R old.pub <{tmp_path}/new.qb >{tmp_path}/old.qb")
    assert opens(folder, "-i old", f"{tmp_path}/old.qb") == 0


# --- who wrote it ---

NOT_PROVEN = (
    "qb-key: error: nothing proves who wrote the archive\n"
    "hint: use --signers for its signature, --expect for its receipt, or --any-writer if you trust its source\n"
)


@pytest.fixture(scope="module")
def signed(folder: Path) -> Path:
    """signed.qb and typed.qb, by the key `alice`; lists of signers: one of alice, one of somebody else, an old one."""
    alice, other = public(make_key(folder / "alice")), public(make_key(folder / "bob"))
    (folder / "signers").write_text(f'alice@example.org namespaces="qbtools" {alice}\n')
    (folder / "others").write_text(f"bob {other}\n")
    (folder / "expired").write_text(f'alice valid-before="20200101" {alice}\n')
    seal = "qb-seal --opaque --logn 10 --sign alice vm1/data <data"
    good(folder, f"{seal} -R old.pub >signed.qb && {seal} --passphrase-file passphrase >typed.qb")
    return folder


def test_an_archive_that_anybody_can_have_written(folder: Path) -> None:
    """With new recipients it still does not prove who wrote it, and opening asks. A typed passphrase would prove it."""
    fails(folder, "qb-key show -i old <old.qb", 5, NOT_PROVEN)
    fails(folder, "qb-key show --key-command 'tr 2-7a-z a-z2-7' <all.qb", 5, NOT_PROVEN)
    typed = "--wrap-passphrase --new-passphrase-file second"
    fails(folder, f"qb-key rewrap -i old {typed} <old.qb", 5, NOT_PROVEN)
    fails(folder, f"qb-key rewrap -i old -R new.pub {typed} <old.qb", 5, NOT_PROVEN)
    assert good(folder, f"qb-key rewrap -i old {typed} --any-writer <old.qb")
    assert good(folder, f"qb-key rewrap --passphrase-file passphrase {typed} <all.qb")
    assert good(folder, "qb-key rewrap -i old -R new.pub --new-key-command cat <old.qb")


def test_an_archive_that_is_signed(signed: Path, tmp_path: Path) -> None:
    """It is still signed after it was wrapped again."""
    new, trust = tmp_path / "new.qb", "--signers signers"
    assert good(signed, f"qb-key show -i old {trust} <signed.qb") == good(
        signed, "qb-key show -i old <signed.qb", QB_SIGNERS="signers"
    )
    good(
        signed,
        f"qb-key rewrap -i old {trust} -R new.pub --wrap-passphrase --new-passphrase-file second <signed.qb >{new}",
    )
    assert raw(new) == raw(signed / "signed.qb")
    for how in ("-i new", "--passphrase-file second"):
        assert key(signed, f"qb-unseal --verify {trust} {how} <{new}").returncode == 0
    assert good(signed, f"qb-key check {trust} <{new}") == good(signed, f"qb-key check {trust} <signed.qb")
    refused = key(signed, f"qb-unseal --verify {trust} -i old <{new}")
    assert refused.returncode == 3


@pytest.mark.parametrize("command", ["check", "show -i old", "rewrap -i old -R new.pub"])
def test_signatures_that_do_not_count(command: str, signed: Path) -> None:
    key_of = f"the archive is signed by the key {fingerprint(signed / 'alice')}"
    for words, status, said in (
        ("--signers others <signed.qb", 4, f"{key_of}, which is not listed in others"),
        ("--signers signers --signer bob <signed.qb", 4, f"{key_of}, which is not listed in signers for bob"),
        ("--signers expired <signed.qb", 5, f"{key_of}, which has expired"),
        ("--signers signers <old.qb", 5, "the archive is not signed"),
        ("--signers none <signed.qb", 1, "cannot read the list of signers none: No such file or directory"),
        ("--signers '' <signed.qb", 2, "--signers: the name is empty"),
        ("--signers signers --signers-time now <signed.qb", 2, "--signers-time: not a time"),
        ("--signer bob <signed.qb", 2, "--signer needs --signers"),
    ):
        done = key(signed, f"qb-key {command} {words}")
        assert (done.returncode, done.stdout) == (status, b"")
        assert done.stderr.decode().startswith(f"qb-key: error: {said}")


def test_check(signed: Path) -> None:
    """No key that opens the archive is needed."""
    expected = f"{fingerprint(signed / 'alice')}\talice@example.org\n".encode()
    for archive in ("signed.qb", "typed.qb"):
        assert good(signed, f"qb-key check --signers signers <{archive}") == expected
        assert good(signed, f"qb-key check <{archive}", QB_SIGNERS="signers") == expected
        assert good(signed, f"qb-key check --signers expired --signers-time 20190101 <{archive}")
    none = "qb-key: error: no list of signers given\nhint: use --signers\n"
    fails(signed, "qb-key check <signed.qb", 2, none)
    for archive in ("old.qb", "none.qb"):
        fails(signed, f"qb-key check --signers signers <{archive}", 5, "qb-key: error: the archive is not signed\n")
    hint = "hint: if you trust its source, open it with --any-writer\n"
    fails(signed, "qb-key show --signers signers <old.qb", 5, f"qb-key: error: the archive is not signed\n{hint}")


def test_a_signature_of_another_archive(signed: Path) -> None:
    """An edited header is refused, too."""
    data = (signed / "signed.qb").read_bytes()
    find = dict(members(signed / "typed.qb")), dict(members(signed / "signed.qb"))
    other, mine = (found["qb-signature"] for found in find)
    said = "qb-key: error: qb-signature is not a signature of this archive: "
    for change in (data.replace(mine, other), data.replace(b"compression-filter=gzip", b"compression-filter=zstd")):
        assert change != data
        done = key(signed, "qb-key check --signers signers", data=change)
        assert (done.returncode, done.stdout) == (4, b"") and done.stderr.decode().startswith(said)


def test_list_names_the_key_of_a_signature(signed: Path) -> None:
    found = fingerprint(signed / "alice")
    assert good(signed, "qb-key list -q <signed.qb").decode() == f"qb-key.age\tX25519\nqb-signature\t{found}\n"
    assert json.loads(good(signed, "qb-key list --json <typed.qb"))["signature"] == {"fingerprint": found}


# --- list ---


def test_list(folder: Path) -> None:
    done = key(folder, "qb-key list <all.qb")
    assert (done.returncode, done.stderr) == (0, b"qb-key: nothing of this is authenticated\n")
    lines = done.stdout.decode().splitlines()
    assert re.fullmatch(r"qb-key.age\tssh-ed25519 [A-Za-z0-9+/]{6}", lines.pop(1))
    assert re.fullmatch(r"qb-key.age\tssh-rsa [A-Za-z0-9+/]{6}", lines.pop(1))
    assert lines == [
        "qb-key.age\tX25519",
        "qb-key.scrypt\tlogN 10, r 8, p 1",
        "qb-key.command\t53 bytes",
    ]
    assert good(folder, "qb-key list -q <none.qb") == b"passphrase\tlogN 10, r 8, p 1\n"


def test_the_tag_is_that_of_the_key(folder: Path) -> None:
    """It is the beginning of SHA-256 over the public key, as age has it."""
    tag = good(folder, "cut -d' ' -f2 ssh.pub | base64 -d | sha256sum | head -c 8 | xxd -r -p | base64").rstrip(b"=\n")
    assert b"qb-key.age\tssh-ed25519 " + tag + b"\n" in good(folder, "qb-key list -q <all.qb")


@pytest.mark.parametrize("command", ["list", "check"])
def test_the_archive_is_no_argument(command: str, folder: Path) -> None:
    done = run("qb-key", command, folder / "a.qb")
    told = f"qb-key: error: unexpected argument: {folder}/a.qb; the input comes on standard input\n"
    assert (done.returncode, done.stderr.decode()) == (2, f"{told}hint: see qb-key --help\n")


def test_list_as_json(folder: Path) -> None:
    found = json.loads(good(folder, "qb-key list --json <all.qb"))
    assert [one["kind"] for one in found.pop("age")] == ["X25519", "ssh-ed25519", "ssh-rsa"]
    expected = {
        "authenticated": False,
        "scrypt": {"logn": 10, "r": 8, "p": 1},
        "command": {"bytes": 53},
        "passphrase": None,
        "signature": None,
        "base": None,
    }
    assert found == expected
    typed = json.loads(good(folder, "qb-key list --json <none.qb"))
    assert typed == {
        "authenticated": False,
        "age": [],
        "scrypt": None,
        "command": None,
        "passphrase": {"logn": 10, "r": 8, "p": 1},
        "signature": None,
        "base": None,
    }


def test_list_needs_no_program(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "python3").symlink_to(shutil.which("python3") or "")
    done = subprocess.run(
        [BIN / "qb-key", "list", "-q"],
        stdin=(folder / "all.qb").open("rb"),
        capture_output=True,
        env={**environment(), "PATH": str(tmp_path)},
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout.count(b"\n")) == (0, b"", 5)
