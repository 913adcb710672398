"""Archives for recipients: each kind of key, each program that seals, each way to name a file in an option."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import identities
import pytest
from hostdirs import Machine, images, inventory, make_host, noise
from manual import examples
from running import wait_until
from support import bash, cheap_programs, run
from terminal import Terminal

PASSPHRASE = {"QB_PASSPHRASE_COMMAND": "echo typed"}

KINDS = {
    "one recipient": ('-r "$(age-keygen -y age1)"', "-i age1"),
    "five recipients": ('-r "$(age-keygen -y age1)" -r "$(cat ed25519.pub)" -R others -R rsa.pub', "-i age5"),
    "the wrong identity too": ('-r "$(age-keygen -y age2)"', "-i age1 -i age2"),
    "ssh-ed25519": ("-R ed25519.pub", "-i ed25519"),
    "ssh-rsa": ('-r "$(cat rsa.pub)"', "-i rsa"),
    "a script": ("--key-command ./wrap", "--key-command ./unwrap"),
    "gpg": (
        "--key-command 'gpg --batch -q --trust-model always -er tester'",
        "--key-command 'gpg --batch -q -d'",
    ),
}
SCRIPT = "#!/bin/sh\nexec tr a-z2-7 2-7a-z\n"

# {s} is where the options for sealing go, {o} those for opening. What was saved is in $OUT/result at the end.
WAYS = {
    "qb-seal": "qb-seal -q --opaque {s} a/x <data >$OUT/a.qb && qb-unseal {o} a/x <$OUT/a.qb >$OUT/result",
    "qb-backup": "qb-backup create -q {s} -o $OUT/a.qb vm1:root=data && qb-backup verify {o} $OUT/a.qb &&"
    " qb-backup restore {o} --to $OUT $OUT/a.qb && mv $OUT/vm1/root.img $OUT/result",
    "qb-seal --from-command": "printf 'a/x\\tdata\\nend\\n' |"
    " qb-seal -q --opaque {s} --from-command 'cat \"$QB_SOURCE\"' - >$OUT/a.qb &&"
    " qb-unseal {o} --to-command 'cat >$OUT/result' a/x <$OUT/a.qb",
    "qb-backup in a pipe": "qb-backup create -q {s} vm1:root=data | tee $OUT/a.qb |"
    " qb-backup restore {o} --map vm1:root=$OUT/result",
    "qb-backup from a host": "qb-backup create -q --host dir:A {s} -o $OUT/a.qb &&"
    " mkdir $OUT/B && qb-backup restore {o} --host dir:$OUT/B -q -y $OUT/a.qb &&"
    " cp data $OUT/result",
}


@pytest.fixture(scope="module")
def gnupg() -> Iterator[str]:
    with identities.gnupg("tester") as home:
        yield home


@pytest.fixture(autouse=True, scope="module")
def cheap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """To wrap a passphrase takes a second, and to unwrap it too; tests/peers/test_age.py uses the real programs."""
    with cheap_programs(tmp_path_factory.mktemp("cheap")):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume, a host, an identity of each kind."""
    place = tmp_path_factory.mktemp("recipients")
    (place / "data").write_bytes(noise("data"))
    recipients = [identities.age(place / f"age{number}") for number in range(1, 6)]
    (place / "others").write_text("# all but the first two\n" + "\n".join(recipients[2:]) + "\n")
    identities.ssh(place / "ed25519", "ed25519")
    identities.ssh(place / "rsa", "rsa")
    for name, text in (("wrap", SCRIPT), ("unwrap", SCRIPT.replace("a-z2-7 2-7a-z", "2-7a-z a-z2-7"))):
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    machines = [Machine(name, data={"root": noise(name), "private": b""}) for name in ("vm1", "vm2")]
    make_host(place / "A", machines)
    return place


# All kinds with one program that seals; each other way with one or two: it hands the same options on.
ROUND_TRIPS = [("qb-seal", kind) for kind in KINDS]
ROUND_TRIPS += [("qb-backup", kind) for kind in ("five recipients", "a script")]
ROUND_TRIPS += [
    ("qb-seal --from-command", "five recipients"),
    ("qb-seal --from-command", "gpg"),
    ("qb-backup in a pipe", "five recipients"),
    ("qb-backup from a host", "gpg"),
]


@pytest.mark.parametrize(("way", "kind"), ROUND_TRIPS)
def test_round_trip(way: str, kind: str, folder: Path, gnupg: str, tmp_path: Path) -> None:
    """Nobody is asked for a passphrase: the default source is not used."""
    sealing, opening = KINDS[kind]
    done = bash(
        f"cd {folder}; {WAYS[way].format(s=sealing, o=f'{opening} --any-writer')}",
        OUT=str(tmp_path),
        GNUPGHOME=gnupg,
        QB_PASSPHRASE_COMMAND=f"touch {tmp_path}/witness; echo wrong",
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert (tmp_path / "result").read_bytes() == (folder / "data").read_bytes()
    assert not (tmp_path / "witness").exists()
    if "host" in way:
        assert set(inventory(tmp_path / "B")) == {"vm1", "vm2"}
        assert images(tmp_path / "B") == images(folder / "A")


def test_an_archive_for_each_machine(folder: Path, tmp_path: Path) -> None:
    done = bash(f"cd {folder}; qb-backup create -q --host dir:A --each -R rsa.pub -o {tmp_path}")
    assert (done.returncode, done.stderr) == (0, b"")
    keys = set()
    for name in ("vm1", "vm2"):
        archive = tmp_path / f"{name}.qbk"
        assert run("qb-backup", "verify", "--any-writer", "-i", folder / "rsa", archive).returncode == 0
        keys.add(bash(f"tar -xOf {archive} qb-key.age | age -d -i {folder}/rsa").stdout)
    assert len(keys) == 2  # each has a passphrase of its own


def test_recipients_and_a_passphrase(folder: Path, tmp_path: Path) -> None:
    made = bash(
        f"cd {folder}; qb-backup create -q -R others --wrap-passphrase --key-command ./wrap -o {tmp_path}/a.qb data",
        **PASSPHRASE,
    )
    assert (made.returncode, made.stderr) == (0, b"")
    for opening in ("-i age4", "--key-command ./unwrap", "--passphrase-command 'echo typed'"):
        done = bash(f"cd {folder}; qb-backup list --any-writer {opening} {tmp_path}/a.qb")
        assert (done.returncode, done.stderr) == (0, b"")


def test_each_asks_once_for_the_passphrase_that_it_wraps(folder: Path, tmp_path: Path) -> None:
    words = ("qb-backup", "create", "-q", "--host", f"dir:{folder}/A", "--each", "--wrap-passphrase", "-o", tmp_path)
    with Terminal(*map(str, words)) as tty:
        for prompt in (b"passphrase: ", b"passphrase again: "):
            tty.expect(prompt)
            tty.type(b"typed\n")
        assert tty.finish().returncode == 0
    assert tty.said.count(b"passphrase") == 2
    assert run("qb-backup", "list", tmp_path / "vm2.qbk", **PASSPHRASE).returncode == 0


PROTECTED = {
    "an SSH key": "qb-unseal --any-writer -i $KEYS/protected --verify <$OUT/a.qb",
    "an identity of age": "qb-backup verify --any-writer -i $KEYS/age.locked $OUT/a.qb",
    "a host": "qb-backup restore -q -y --any-writer -i $KEYS/protected --host dir:$OUT/B $OUT/a.qb",
}


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Identities that a passphrase protects, and their recipients."""
    place = tmp_path_factory.mktemp("protected")
    recipient = identities.age(place / "age")
    with Terminal("age", "-p", "-o", str(place / "age.locked"), str(place / "age")) as tty:
        for prompt in (b"Enter passphrase", b"Confirm passphrase"):
            tty.expect(prompt)
            tty.type(b"opens it\n")
        assert tty.finish().returncode == 0
    (place / "recipients").write_text(f"{recipient}\n{identities.ssh(place / 'protected', 'ed25519', 'opens it')}\n")
    return place


@pytest.fixture(scope="module")
def sealed(protected: Path, folder: Path) -> Path:
    """A directory with volume.qb, an archive for these identities, and host.qb, which is of a host."""
    for name, source in (("volume", f"vm1:root={folder}/data"), ("host", f"--host dir:{folder}/A vm1")):
        made = bash(f"qb-backup create -q -R {protected}/recipients -o {protected}/{name}.qb {source}")
        assert (made.returncode, made.stderr) == (0, b"")
    return protected


def archive_for(kind: str, sealed: Path, place: Path) -> None:
    """Puts the archive for a command of PROTECTED or INTERRUPTED in place."""
    os.link(sealed / ("host.qb" if kind == "a host" else "volume.qb"), place / "a.qb")


@pytest.mark.parametrize("kind", PROTECTED)
def test_a_protected_identity_asks_on_the_terminal(kind: str, protected: Path, sealed: Path, tmp_path: Path) -> None:
    archive_for(kind, sealed, tmp_path)
    (tmp_path / "B").mkdir()
    with Terminal("bash", "-c", PROTECTED[kind], KEYS=str(protected), OUT=str(tmp_path)) as tty:
        tty.expect(b"Enter passphrase")
        wait_until(lambda: not tty.echoes(), "no echo")  # age asks first
        tty.type(b"opens it\n")
        done = tty.finish()
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"opens it" not in tty.said


INTERRUPTED = {
    **PROTECTED,
    "qb-backup restore": "qb-backup restore --any-writer -i $KEYS/age.locked --to $OUT/new $OUT/a.qb",
    "qb-key": "qb-key show --any-writer -i $KEYS/protected <$OUT/a.qb",
}


@pytest.mark.parametrize("kind", INTERRUPTED)
def test_an_interrupt_while_a_protected_identity_asks(kind: str, protected: Path, sealed: Path, tmp_path: Path) -> None:
    """The terminal shows again what is typed, no process is left, and nothing was written."""
    archive_for(kind, sealed, tmp_path)
    (tmp_path / "B").mkdir()
    text = f"trap : INT; {INTERRUPTED[kind]}; echo $? >{tmp_path}/status"
    mark = str(tmp_path)
    with Terminal("bash", "-c", text, KEYS=str(protected), OUT=mark) as tty:
        tty.expect(b"Enter passphrase")
        wait_until(lambda: not tty.echoes(), "no echo")
        tty.type(b"\x03")
        wait_until(lambda: (tmp_path / "status").exists() and bool((tmp_path / "status").read_text()), "the end")
        assert (tmp_path / "status").read_text() == "130\n"
        assert tty.echoes()
        done = tty.finish()
        assert done.stderr.count(b"\n") <= 1, "at most a line about it"
        wait_until(lambda: not of_test(mark), "the end of all processes")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["B", "a.qb", "status"]


def of_test(mark: str) -> list[str]:
    """The processes whose environment holds a text."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (process / "environ").read_bytes():
                found.append(process.name)
    return found


def test_a_protected_identity_without_a_terminal(sealed: Path) -> None:
    done = run("qb-backup", "list", "-i", sealed / "protected", sealed / "volume.qb")
    assert (done.returncode, done.stdout) == (3, b"")
    assert "no identity opens qb-key.age" in done.stderr.decode().splitlines()[0]


# --- what options name may be a descriptor ---

DESCRIPTORS = {
    "recipients": "qb-backup create -q -R <(age-keygen -y age1) -o $OUT/a.qb data &&"
    " qb-backup list --any-writer -i age1 $OUT/a.qb",
    "recipients on standard input": "age-keygen -y age1 | qb-backup create -q -R /dev/stdin -o $OUT/a.qb data &&"
    " qb-backup list --any-writer -i age1 $OUT/a.qb",
    "several": "qb-backup create -q -R <(age-keygen -y age1) -R <(age-keygen -y age2) data >$OUT/a.qb &&"
    " qb-backup list --any-writer -i age2 $OUT/a.qb",
    "a low descriptor": "qb-backup create -q -R /dev/fd/3 3< <(age-keygen -y age1) data >$OUT/a.qb &&"
    " qb-backup list --any-writer -i /dev/fd/4 4<age1 $OUT/a.qb",
    "identity": "qb-backup create -q -R rsa.pub -o $OUT/a.qb data &&"
    " qb-backup list --any-writer -i <(cat rsa) <$OUT/a.qb",
    "identity on standard input": "qb-backup create -q -R rsa.pub -o $OUT/a.qb data &&"
    " qb-backup list --any-writer -i /dev/stdin $OUT/a.qb <rsa",
    "passphrase": "qb-backup create -q --logn 10 --passphrase-file <(echo typed) -o $OUT/a.qb data &&"
    " qb-backup list --passphrase-file <(echo typed) <$OUT/a.qb",
    "passphrase on standard input": "echo typed |"
    " qb-backup create -q --logn 10 --passphrase-file /dev/stdin -o $OUT/a.qb data &&"
    " echo typed | qb-backup list --passphrase-file /dev/stdin $OUT/a.qb",
    "passphrase in a variable": "QB_PASSPHRASE_FILE=<(echo typed)"
    " qb-backup create -q --logn 10 -o $OUT/a.qb data && echo typed |"
    " QB_PASSPHRASE_FILE=/dev/stdin qb-backup list $OUT/a.qb",
    "signers in a variable": "qb-backup create -q -R rsa.pub --sign ed25519 -o $OUT/a.qb data &&"
    " QB_SIGNERS=<(echo tester $(cat ed25519.pub)) qb-backup list -i rsa $OUT/a.qb",
    "each": "qb-backup create -q --host dir:A --each -R <(age-keygen -y age1) -o $OUT &&"
    " qb-backup list --any-writer -i age1 $OUT/vm1.qbk && qb-backup list --any-writer -i age1 $OUT/vm2.qbk",
}


@pytest.mark.parametrize("what", DESCRIPTORS)
def test_descriptors(what: str, folder: Path, tmp_path: Path) -> None:
    done = bash(f"cd {folder}; {DESCRIPTORS[what]}", OUT=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, b"")


# --- what is refused ---

REFUSED = {
    "age": (1, "cannot wrap the passphrase: age: ", "create -r age1nobody"),
    "no such file": (1, "cannot read the recipients file missing", "create -R missing"),
    "no descriptor": (1, "cannot read the recipients from descriptor 77: it is not open", "create -R /dev/fd/77"),
    "empty recipient": (2, "--recipient: the recipient is empty", "create -r ''"),
    "both": (2, "--passphrase-file is of no use with --recipients-file", "create -R rsa.pub --passphrase-file data"),
    "command": (1, "the key command ended with status 3", "create --key-command 'exit 3'"),
    "a passphrase besides": (2, "--identity and --passphrase-fd exclude each other", "list -i age1 --passphrase-fd 9"),
    "standard input": (2, "--identity: standard input is taken", "list -i /dev/stdin"),
    "too many": (5, "too many recipients", "create -R <(for i in {1..900}; do cat others; done)"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str, folder: Path, tmp_path: Path) -> None:
    """Nothing is written, and nothing is left."""
    status, message, words = REFUSED[what]
    archive = f"-o {tmp_path}/a.qb vm1:root=data" if words.startswith("create") else ""
    done = bash(f"cd {folder}; qb-backup -q {words} {archive}", QB_PASSPHRASE_COMMAND=f"touch {tmp_path}/witness")
    errors = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (status, b""), errors
    assert f": error: {message}" in errors[0]
    assert len(errors) <= 2
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("command", ["create data", "list data", "verify -i rsa data"])
@pytest.mark.parametrize("variable", ["QB_PASSPHRASE_FILE", "QB_SIGNERS"])
def test_a_variable_with_a_descriptor_that_is_not_open(variable: str, command: str, folder: Path) -> None:
    """In a stage the number is another file. A variable that is not used is no error."""
    done = bash(f"cd {folder}; timeout 20 qb-backup -q {command} | cat", **{variable: "/dev/fd/7"})
    told = f"cannot read the {'passphrase' if 'PASS' in variable else 'list of signers'} from descriptor 7: it is not"
    unused = command.startswith("create") if variable == "QB_SIGNERS" else "-i" in command
    assert (told in done.stderr.decode()) != unused


def test_an_identity_is_no_target(sealed: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes((sealed / "age").read_bytes())
    words = (
        "--overwrite",
        "--any-writer",
        "-i",
        tmp_path / "key",
        "--map",
        f"vm1:root={tmp_path}/key",
        sealed / "volume.qb",
    )
    done = run("qb-backup", "restore", *words)
    assert (done.returncode, done.stdout) == (5, b"")
    assert b"vm1:root cannot be written over the identity " in done.stderr
    assert (tmp_path / "key").read_bytes() == (sealed / "age").read_bytes()


def test_the_recipients_are_not_the_file_of_the_id(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "to").write_bytes((folder / "rsa.pub").read_bytes())
    words = ("-R", tmp_path / "to", "--id-file", tmp_path / "to", f"vm1:root={folder}/data")
    done = run("qb-backup", "create", *words)
    assert (done.returncode, done.stdout) == (5, b"")
    assert b"is the same file as the recipients " in done.stderr
    assert (tmp_path / "to").read_bytes() == (folder / "rsa.pub").read_bytes()


def test_a_copy_of_the_wrap_opens_an_archive_whose_own_is_damaged(folder: Path, tmp_path: Path) -> None:
    """The receipt does not cover it, as qbtools(7) says."""
    make = f"qb-backup create -q -R rsa.pub --receipt {tmp_path}/receipt -o {tmp_path}/a.qb vm1:root=data"
    assert bash(f"cd {folder}; {make} && tar -xOf {tmp_path}/a.qb qb-key.age >{tmp_path}/copy").returncode == 0
    data, wrap = (tmp_path / "a.qb").read_bytes(), (tmp_path / "copy").read_bytes()
    assert data.count(wrap) == 1
    (tmp_path / "b.qb").write_bytes(data.replace(wrap, wrap[:-1] + bytes([wrap[-1] ^ 1])))
    place = f"cd {folder}; set -- {tmp_path}/b.qb {tmp_path}/receipt;"
    assert bash(f'{place} qb-unseal --structure --expect "$2" <"$1"').returncode == 0
    assert bash(f'{place} qb-backup verify -i rsa --expect "$2" "$1"').returncode == 3
    assert bash(f"{place} qb-backup verify --passphrase-command 'age -d -i rsa {tmp_path}/copy' \"$1\"").returncode == 0


# --- by hand ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-R rsa.pub", "a passphrase is made, but --secret-fd is not given\nhint: qb-seal and qb-manifest need it too"),
        (
            "--secret-fd 4 --passphrase-file data",
            "--secret-fd needs an option that makes a passphrase\nhint: use -r, -R, --key-command or --wrap-passphrase",
        ),
    ],
)
def test_a_header_and_its_secret_belong_together(words: str, message: str, folder: Path) -> None:
    done = bash(f"cd {folder}; qb-header write --backup-id one {words} 4>/dev/null")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == f"qb-header: error: {message}\n"


BY_HAND = """
cd $OUT
id=$(qb-header id) &&
secret=$(qb-header write --backup-id "$id" {s} --secret-fd 4 4>&1 >1.header) &&
for name in one two; do
    qb-seal --opaque --logn 10 --backup-id "$id" --record records --passphrase-fd 5 $name <$DATA >2.$name \\
        5< <(printf %s "$secret") || exit
done &&
qb-manifest --logn 10 --backup-id "$id" --passphrase-fd 5 records >3.manifest 5< <(printf %s "$secret") &&
cat 1.header 2.one 2.two 3.manifest >a.qb
"""


def test_by_hand(folder: Path, tmp_path: Path) -> None:
    recipient = run("age-keygen", "-y", folder / "age3").stdout.decode().strip()
    data = str(folder / "data")
    made = bash(BY_HAND.format(s=f"--recipient {recipient}"), OUT=str(tmp_path), DATA=data)
    assert (made.returncode, made.stderr) == (0, b"")
    done = bash(f"qb-unseal --any-writer -i {folder}/age3 two <{tmp_path}/a.qb | cmp - {data}")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("words", ["-R rsa.pub", "--key-command cat", "--secret-fd 4", "--secret-fd 2 -R rsa.pub"])
def test_whoever_seals_the_files_must_learn_the_passphrase(words: str, folder: Path) -> None:
    done = bash(f"cd {folder}; qb-header write --backup-id ID {words} 4>&1 | cat; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--secret-fd" in done.stderr.splitlines()[0]


def test_the_examples_of_the_manual(folder: Path, tmp_path: Path) -> None:
    text = examples("qb-backup.1")["recipients"]
    (tmp_path / "recipients.txt").write_bytes((folder / "rsa.pub").read_bytes())
    (tmp_path / "key.txt").write_bytes((folder / "rsa").read_bytes())
    (tmp_path / "key.txt").chmod(0o600)
    (tmp_path / "signers").write_text(f"saver {identities.ssh(tmp_path / 'signing.key', 'ed25519')}\n")
    for _turn in range(2):
        done = bash(f"cd {tmp_path}; {text.replace('/dev/vg/root', str(folder / 'data'))}")
        assert (done.returncode, b"error" in done.stderr) == (0, False), done.stderr
    assert (tmp_path / "restored/vm1/root.img").read_bytes() == (folder / "data").read_bytes()
