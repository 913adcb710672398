"""qb-backup merge: one full archive of a chain, and everything that must leave none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import chains
import identities
import pytest
from chains import Link, header_of
from devices import tmpfs
from hostdirs import Machine, make_host
from running import Running, kill, read
from support import bash, cheap_programs

ROOT, PRIVATE, OTHER = "vm1/root.img", "vm1/private.img", "vm2/private.img"
MERGE = "qb-backup merge -q --logn 10"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merge")
    for name, secret in (("passphrase", chains.SECRET), ("new", b"another one")):
        (folder / name).write_bytes(secret)
        (folder / name).chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def links(place: Path) -> list[Link]:
    """0.qb to 2.qb: root changes and shrinks, private is whole again at the end, and 1.qb alone lacks the other."""
    root, private, other = os.urandom(300_000), os.urandom(50_000), os.urandom(70_001)
    states = {ROOT: root, PRIVATE: private, OTHER: other}
    found = [chains.seal(place / "0.qb", 1, states)]
    states = {ROOT: bytes(9000) + root[9000:200_000], PRIVATE: private + b"more"}
    found.append(chains.seal(place / "1.qb", 2, states, found[-1]))
    states = {ROOT: states[ROOT] + os.urandom(30_000), PRIVATE: private[::-1], OTHER: other[:-5]}
    found.append(chains.seal(place / "2.qb", 3, states, found[-1], [PRIVATE]))
    return found


@pytest.fixture(scope="module")
def small(place: Path) -> bytes:
    """small0.qb and small1.qb: a chain of one volume; its first state."""
    data = os.urandom(50_000)
    full = chains.seal(place / "small0.qb", 4, {ROOT: data})
    chains.seal(place / "small1.qb", 5, {ROOT: data[:-5]}, full)
    return data


def run(place: Path, text: str) -> subprocess.CompletedProcess[bytes]:
    return bash(f"cd {place} && rm -rf to new.qb* new.receipt && {text}", QB_PASSPHRASE_FILE="passphrase")


def well(place: Path, text: str) -> bytes:
    done = run(place, text)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    return done.stdout


def fails(place: Path, text: str, status: int, message: str) -> None:
    """Ends with status and one line with message, and leaves no archive, complete or not."""
    done = run(place, text)
    lines = [line for line in done.stderr.decode().splitlines() if ": warning: " not in line]
    assert done.returncode == status, lines
    assert len(lines) <= 2
    assert ": error: " in lines[0] and message in lines[0], lines
    assert list(place.glob("new.qb*")) == []


def restored(place: Path) -> dict[str, bytes]:
    paths = [path for path in (place / "to").rglob("*") if path.is_file()]
    return {f"vm{path.parent.name.removeprefix('d')}/{path.name}": path.read_bytes() for path in paths}


@pytest.mark.parametrize("last", [1, 2])
def test_each_state(place: Path, links: list[Link], last: int) -> None:
    words = f"--at {links[last].backup_id} 2.qb 0.qb 1.qb"
    well(place, f"{MERGE} -o new.qb {words} && qb-backup restore --to to new.qb")
    assert restored(place) == links[last].states
    found = header_of(place / "new.qb")
    assert (found.version, found.base, found.manifest) == (4, None, True)
    assert found.backup_id not in [link.backup_id for link in links]


def test_a_full_archive_alone_and_standard_output(place: Path, links: list[Link], small: bytes) -> None:
    well(place, f"{MERGE} small0.qb | qb-backup restore --to to")
    assert restored(place) == {ROOT: small}
    well(place, f"{MERGE} --compress none 2.qb 1.qb 0.qb | qb-backup restore --to to")
    assert restored(place) == links[2].states


def test_it_begins_a_chain_of_its_own(place: Path, links: list[Link]) -> None:
    well(place, f"{MERGE} -o own.qb 0.qb 1.qb")
    done = run(place, "qb-backup restore --to to own.qb 2.qb")
    assert done.returncode == 4
    assert f"the backup {links[1].backup_id} is missing".encode() in done.stderr
    chain = json.loads(well(place, "qb-backup list --json own.qb"))
    assert chain["base"] is None


def test_by_hand(place: Path, links: list[Link]) -> None:
    """What the emergency page says opens it: tar, scrypt and gzip alone."""
    backup_id = well(place, f"{MERGE} --id-file id -o new.qb 0.qb 1.qb 2.qb && cat id").decode().strip()
    for name, data in links[2].states.items():
        text = f"tar -xOf new.qb {name}.000.enc | scrypt dec -f --passphrase file:secret - | gzip -dc | tar -xOS >plain"
        (place / "secret").write_bytes(f"{backup_id}!{name}.000!".encode() + chains.SECRET)
        done = bash(f"cd {place} && {text}")
        assert done.returncode == 0, done.stderr.decode()
        assert (place / "plain").read_bytes() == data


def test_homes_and_further_files_come_along(tmp_path: Path) -> None:
    """They are whole in each archive; those of the last one are taken as they are."""
    chains.with_passphrase(tmp_path)
    template = Machine("deb", "TemplateVM", {}, {"root": b"deb" * 50_000})
    for number in range(2):
        data, files = {"private": b"private %d" % number * 9000}, {"firewall.xml": b"rules %d" % number}
        machine = Machine("vm", "AppVM", {"template": "deb"}, data, files=files)
        bash(f"rm -rf {tmp_path}/A")
        make_host(tmp_path / "A", [template, machine])
        (tmp_path / "A/dom0/user").mkdir(parents=True)
        (tmp_path / "A/dom0/user/note").write_text(f"note {number}\n")
        words = f"-q --logn 10 --host A --series series -o {number}.qb vm deb dom0"
        done = bash(f"cd {tmp_path} && qb-backup create {words}", QB_PASSPHRASE_FILE="passphrase")
        assert done.returncode == 0, done.stderr.decode()
    text = f"""{MERGE} -o new.qb 1.qb 0.qb &&
        for at in 1 new; do qb-unseal --list <$at.qb | cut -f1 | sort >$at.names; done && cmp 1.names new.names &&
        for name in $(grep -v img new.names); do for at in 1 new; do
            qb-unseal $name <$at.qb | gzip -dc >$at.tar; done; cmp 1.tar new.tar || exit; done
        qb-backup restore --to to new.qb && cat to/vm/private.img"""
    done = bash(f"cd {tmp_path} && {text}", QB_PASSPHRASE_FILE="passphrase")
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.rstrip(b"\0") == b"private 1" * 9000
    assert "dom0-home/user" in (tmp_path / "new.names").read_text()
    assert "firewall.xml" in (tmp_path / "new.names").read_text()


@pytest.fixture
def cheap(tmp_path: Path) -> Iterator[None]:
    with cheap_programs(tmp_path / "cheap"):
        yield


def test_passphrases_and_recipients_of_the_new_archive(cheap: None, place: Path, small: bytes) -> None:
    chain = "-o new.qb small0.qb"
    opens = "qb-backup verify -q --passphrase-file new new.qb"
    well(place, f"{MERGE} --new-passphrase-file new {chain} && {opens}")
    well(place, f"{MERGE} --new-passphrase-fd 7 {chain} small1.qb 7<new && {opens}")
    well(place, f"{MERGE} --new-passphrase-command 'cat new' --wrap-passphrase {chain} && {opens}")
    well(place, f"{MERGE} --wrap-passphrase {chain} && qb-backup verify -q new.qb")
    recipient = identities.age(place / "identity")
    opens = "qb-backup verify -q -i identity --expect new.receipt new.qb"
    well(place, f"{MERGE} -r {recipient} --receipt new.receipt {chain} && {opens}")
    assert header_of(place / "new.qb").key
    opens = "qb-backup verify -q --key-command 'tr b-za a-z' --expect new.receipt new.qb"
    well(place, f"{MERGE} --new-key-command 'tr a-z b-za' --receipt new.receipt {chain} && {opens}")
    fails(place, f"{MERGE} -r {recipient} --new-passphrase-file new {chain}", 2, "--new-passphrase-file is of no use")
    fails(place, f"{MERGE} --passphrase-file new {chain}", 3, "small0.qb: the passphrase is wrong")
    # A chain that identities open has no passphrase that the new archive could take.
    well(place, f"{MERGE} -r {recipient} --receipt r -o sealed.qb small0.qb && rm -f new.qb")
    opened = f"{MERGE} -i identity --expect r -o new.qb"
    fails(place, f"{opened} sealed.qb", 2, "no new passphrase, and no terminal to ask for one")
    well(
        place, f"{opened} --new-passphrase-file new sealed.qb && qb-backup restore --to to --passphrase-file new new.qb"
    )
    assert restored(place) == {ROOT: small}


def test_a_signature_of_the_new_archive(place: Path, small: bytes) -> None:
    (place / "signers").write_text(f"me {identities.ssh(place / 'key', 'ed25519')}\n")
    text = f"{MERGE} --sign key -o new.qb small0.qb small1.qb && qb-backup verify -q --signers signers new.qb"
    well(place, text)


def test_a_missing_or_doubled_archive(place: Path, links: list[Link]) -> None:
    fails(place, f"{MERGE} -o new.qb 0.qb 2.qb", 4, f"the backup {links[1].backup_id} is missing")
    fails(place, f"{MERGE} -o new.qb 1.qb", 4, f"the backup {links[0].backup_id} is missing")
    fails(place, f"{MERGE} -o new.qb 0.qb 0.qb", 4, "are both the backup")


@pytest.mark.parametrize(("name", "member"), [("0.qb", ROOT), ("1.qb", PRIVATE), ("2.qb", ROOT), ("2.qb", PRIVATE)])
def test_damage_in_any_archive(place: Path, links: list[Link], name: str, member: str) -> None:
    """Also in the last file of the archive."""
    data = bytearray((place / name).read_bytes())
    data[data.index(member.encode() + b".000.enc") + 512 + 300] ^= 1
    (place / "bad.qb").write_bytes(data)
    files = " ".join("bad.qb" if one == name else one for one in ("0.qb", "1.qb", "2.qb"))
    last = 2 if name == "2.qb" else 1  # 2.qb has all of private: nothing before it is needed
    message = f"{member}.000.enc does not authenticate"
    fails(place, f"{MERGE} -o new.qb --at {links[last].backup_id} {files}", 4, message)


def test_an_archive_is_completed_only_when_the_list_says_so(tmp_path: Path) -> None:
    """qb-backup says so when all old archives were read to their ends."""
    seal = "qb-seal --opaque --logn 10 --passphrase-command 'echo x' --await-end --from-command 'echo $QB_NAME' -"
    for end, status, message in (
        ("complete\\n", 0, ""),
        ("", 4, "the list ends without the line that confirms it"),
        ("complet", 4, "something else"),
        ("end\\n", 4, "something else"),
    ):
        done = bash(f"cd {tmp_path} && printf 'a\\tx\\nb\\tx\\nend\\n{end}' | {seal} >new.qb")
        assert done.returncode == status, done.stderr
        assert message in done.stderr.decode()
        done = bash(f"qb-unseal --verify --passphrase-command 'echo x' <{tmp_path}/new.qb")
        assert done.returncode == status, done.stderr
    done = bash(f"{seal} --keep-going </dev/null")
    assert done.returncode == 2


def test_what_exists_stays(place: Path, links: list[Link]) -> None:
    before = (place / "0.qb").read_bytes()
    for words in ("-o 0.qb", "-o other --receipt 0.qb", "-o other --id-file 0.qb"):
        done = run(place, f"{MERGE} {words} 0.qb 1.qb")
        assert done.returncode == 5, done.stderr
        assert (place / "0.qb").read_bytes() == before
        assert not (place / "other").exists()


def test_usage(place: Path, links: list[Link]) -> None:
    for words, message in (
        ("", "no file given"),
        ("--to x 0.qb", "--to does not go with merge"),
        ("--series x 0.qb", "--series does not go with merge"),
        ("--compress rar 0.qb", "--compress: must be one of"),
        ("--at nothing 0.qb 1.qb", "none of the archives has the backup ID nothing"),
        ("- <0.qb", "cannot come on standard input"),
    ):
        fails(place, f"{MERGE} -o new.qb {words}", 2, message)
    fails(place, "qb-backup create --new-passphrase-file new -o new.qb passphrase", 2, "does not go with create")


def test_no_room(place: Path, links: list[Link], tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "128k"):
        done = run(place, f"{MERGE} -o {tmp_path}/small/new.qb 0.qb 1.qb 2.qb")
        assert done.returncode == 1, done.stderr
        assert b"No space left on device" in done.stderr
        assert list((tmp_path / "small").glob("new.qb")) == []


def test_a_reader_that_leaves(place: Path, links: list[Link]) -> None:
    done = run(place, f"{MERGE} 0.qb 1.qb 2.qb | head -c 5000 >/dev/null; echo ${{PIPESTATUS[0]}}")
    assert (done.stdout, done.stderr) == (b"141\n", b"")
    done = run(place, f"{MERGE} 0.qb 1.qb 2.qb >&-")
    assert done.returncode == 1
    assert done.stderr.count(b"error: ") == 1


@pytest.mark.parametrize(
    "stage",
    ["qb-unseal", "qb-decompress", "qb-merge", "qb-tarwrite", "qb-compress", "qb-seal", "qb-store"],
)
def test_a_stage_that_dies(place: Path, links: list[Link], tmp_path: Path, stage: str) -> None:
    """However a stage dies, there is no new archive, and the status is 1."""
    secret = {"QB_PASSPHRASE_FILE": str(place / "passphrase"), "TMPDIR": str(tmp_path)}
    with Running(tmp_path, **secret) as running:
        running.hold_in(ROOT, 2000)
        running.start(f"exec {MERGE} -o new.qb {place}/0.qb {place}/1.qb")
        running.hold()
        (sealing,) = running.some("qb-seal")
        assert b"--await-end\0" in read(f"/proc/{sealing}/cmdline")  # an old archive may fail after its last volume
        kill(running.some(stage)[0], signal.SIGKILL)
        for _held in range(3):  # the decompressors of both archives, and the compressor
            running.release()
        status, said = running.end()
        running.gone()
    assert status in (1, 137), said
    assert said.count(": error: ") == 1, said
    assert not (tmp_path / "new.qb").exists()
    assert list(tmp_path.glob("qb-streams.*")) == []
