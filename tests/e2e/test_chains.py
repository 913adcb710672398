"""qb-backup with a full archive and its increments: what is restored, and attacks and accidents that are noticed."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import chains
import identities
import pytest
from chains import OTHER, PRIVATE, ROOT, Link, backup, fails, restored
from running import Running, kill, wait_until
from support import bash, copy_of

from qbtools import processtree
from qbtools.formats import manifest


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chains.with_passphrase(tmp_path_factory.mktemp("chains"))


@pytest.fixture(scope="module")
def links(place: Path) -> list[Link]:
    return chains.five(place)


@pytest.mark.parametrize("last", [0, 4])
def test_every_state_is_restored(place: Path, links: list[Link], last: int) -> None:
    files = [f"{number}.qb" for number in range(last + 1)]
    random.Random(last).shuffle(files)
    if last == 0:
        files += ["1.qb", "--at", links[0].backup_id]
    done = backup(place, f"restore --to to {' '.join(files)}")
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    assert restored(place) == links[last].states


def test_a_state_in_the_middle(place: Path, links: list[Link]) -> None:
    done = backup(place, f"restore --to to --at {links[3].backup_id} 4.qb 0.qb 3.qb 1.qb 2.qb")
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    assert restored(place) == links[3].states
    done = backup(place, "restore --to to --only d2 0.qb 1.qb 2.qb")
    assert (done.returncode, done.stderr) == (0, b"")
    assert restored(place) == {OTHER: links[2].states[OTHER]}


def test_a_temporary_directory_with_an_odd_name(place: Path, links: list[Link], tmp_path: Path) -> None:
    """Bash replaces & in some texts."""
    temporary = tmp_path / 'a & b new\nline* quote\\&"'
    temporary.mkdir()
    for command in ("restore --to to --only d1:private", "merge -q --logn 10 -o to/new.qb"):
        text = f"cd {place} && rm -rf to && mkdir to && qb-backup {command} 0.qb 1.qb"
        done = bash(text, QB_PASSPHRASE_FILE="passphrase", TMPDIR=str(temporary))
        assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    assert not list(temporary.iterdir())


def test_many_archives_and_a_low_limit_of_open_descriptors(place: Path, links: list[Link], tmp_path: Path) -> None:
    for words in (
        "restore --to to --only d1:private 0.qb 1.qb 2.qb 3.qb 4.qb",
        "restore --to to --only d1:private 0.qb <(cat 1.qb) 2.qb 3.qb",
    ):
        done = bash(f"cd {place} && rm -rf to && ulimit -Sn 20 && qb-backup {words}", QB_PASSPHRASE_FILE="passphrase")
        assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()


def test_a_low_hard_limit_of_open_descriptors(place: Path, links: list[Link]) -> None:
    """Too low to begin the stages early, but not to restore; and it hides no other error."""
    for words, status in (("0.qb 1.qb 2.qb 3.qb", 0), ("0.qb 2.qb 3.qb 4.qb", 4)):
        text = f"cd {place} && rm -rf to && ulimit -n 40 && qb-backup restore --to to --only d1:private {words}"
        done = bash(text, QB_PASSPHRASE_FILE="passphrase")
        assert done.returncode == status, done.stderr.decode()
        assert (b"is missing: it is the base of 2.qb" in done.stderr) == bool(status), done.stderr.decode()


def test_verify_and_list(place: Path, links: list[Link]) -> None:
    done = backup(place, "verify -v 2.qb 0.qb 1.qb")
    assert done.returncode == 0, done.stderr.decode()
    assert [line.split()[1] for line in done.stderr.decode().splitlines() if ", complete" in line] == [
        "0.qb:", "1.qb:", "2.qb:"
    ]  # fmt: skip
    assert b"warning" not in done.stderr
    done = backup(place, "list 2.qb 0.qb 1.qb")
    assert (done.returncode, done.stderr) == (0, b"")
    assert [line.split(b"\t")[3].decode() for line in done.stdout.splitlines()] == list(links[2].states)


def test_without_metadata(place: Path, links: list[Link], tmp_path: Path) -> None:
    chains.with_passphrase(tmp_path)
    full = chains.seal(tmp_path / "a.qb", 1, {ROOT: b"a" * 9000}, metadata=False)
    chains.seal(tmp_path / "b.qb", 2, {ROOT: b"b" * 9001}, full, metadata=False)
    done = backup(tmp_path, "restore --to to a.qb b.qb")
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    assert (tmp_path / "to" / ROOT).read_bytes() == b"b" * 9001


def test_a_dropped_archive(place: Path, links: list[Link]) -> None:
    for command in ("restore --to to", "verify", "list"):
        fails(place, f"{command} 0.qb 2.qb", 4, f"the backup {links[1].backup_id} is missing: it is the base of 2.qb")
        fails(place, f"{command} 1.qb 2.qb", 4, f"the backup {links[0].backup_id} is missing: it is the base of 1.qb")


def test_a_doubled_archive(place: Path, links: list[Link]) -> None:
    fails(place, "restore --to to 0.qb 1.qb 1.qb", 4, f"1.qb and 1.qb are both the backup {links[1].backup_id}")
    fails(place, "restore --to to 0.qb 0.qb", 4, "are both the backup")


def test_an_archive_of_another_series_with_the_same_passphrase(place: Path, links: list[Link]) -> None:
    full = chains.seal(place / "a.qb", 11, links[0].states)
    chains.seal(place / "b.qb", 12, links[1].states, full)
    fails(place, "restore --to to 0.qb b.qb", 4, f"the backup {full.backup_id} is missing: it is the base of b.qb")
    fails(place, "restore --to to 0.qb 1.qb b.qb", 4, "is missing: it is the base of b.qb")
    fails(place, "restore --to to a.qb 1.qb", 4, "is missing: it is the base of 1.qb")
    fails(place, "restore --to to a.qb 0.qb 1.qb b.qb", 4, "are both full backups: a chain has one")


def test_a_base_that_was_sealed_again_under_its_id(place: Path, links: list[Link]) -> None:
    chains.seal(place / "again.qb", 1, {**links[0].states, ROOT: b"evil" * 1000})
    message = f"again.qb is not the base of 1.qb, but another archive of the backup {links[0].backup_id}"
    for command in ("restore --to to", "verify"):
        fails(place, f"{command} again.qb 1.qb 2.qb", 4, message)
    chains.seal(place / "middle.qb", 2, {**links[1].states, ROOT: b"evil" * 1000}, links[0])
    fails(place, "restore --to to 0.qb middle.qb 2.qb", 4, "middle.qb is not the base of 2.qb")


def test_two_increments_of_one_base(place: Path, links: list[Link]) -> None:
    fork = chains.seal(place / "fork.qb", 21, {**links[1].states, PRIVATE: b"fork" * 2000}, links[0])
    fails(place, "restore --to to 0.qb 1.qb fork.qb", 2, f"{links[1].backup_id} (2026-11-02 06:00:00 UTC)")
    fails(place, "verify 0.qb 1.qb fork.qb", 2, f"{fork.backup_id} (2026-11-21 06:00:00 UTC)")
    fails(place, "restore --to to --at nothing 0.qb fork.qb", 2, "none of the archives has the backup ID nothing")
    for link in (links[1], fork):
        done = backup(place, f"restore --to to --only d1:private --at {link.backup_id} 0.qb 1.qb fork.qb")
        assert (done.returncode, done.stderr) == (0, b"")
        assert restored(place) == {PRIVATE: link.states[PRIVATE]}


def test_a_header_that_names_the_wrong_base(place: Path, links: list[Link]) -> None:
    """The archive says that it follows 1.qb, but its increments are of 0.qb."""
    chains.seal(place / "liar.qb", 22, {**links[0].states, PRIVATE: b"x" * 9000}, links[0], lie=links[1].base)
    message = f"is an increment of the backup {links[0].backup_id}, not of {links[1].backup_id}"
    fails(place, "verify 0.qb 1.qb liar.qb", 4, message)
    said = f"{PRIVATE} has the same base as a stream before it: {links[0].backup_id}"
    fails(place, "restore --to to --only d1:private 0.qb 1.qb liar.qb", 4, said)


def test_the_index_of_a_sibling_volume(place: Path) -> None:
    """Of the same archive and size: only the digest of its line in the manifest tells them apart."""
    states = {ROOT: os.urandom(9000), PRIVATE: os.urandom(9000)}
    full = chains.seal(place / "s0.qb", 1, states)
    right, wrong = (next(one for one in full.records if one.name == name) for name in (ROOT, PRIVATE))

    def swap(name: str, stream: bytes) -> bytes:
        good, bad = (manifest.line_digest(one).encode() for one in (right, wrong))
        return stream.replace(good, bad) if name == ROOT else stream

    chains.seal(place / "s1.qb", 2, {**states, ROOT: states[ROOT][:-1] + b"x"}, full, change=swap)
    fails(place, "verify s0.qb s1.qb", 4, f"{ROOT} is no increment of that volume in the backup")
    fails(place, "restore --to to --only d1:root s0.qb s1.qb", 4, f"{ROOT} is an increment of another volume or backup")


def test_an_increment_where_the_base_has_nothing(place: Path, links: list[Link]) -> None:
    """3.qb does not have the second machine, so what follows it must have that whole."""
    states = {**links[3].states, OTHER: b"y" * 9000}
    mixed = Link(links[3].path, links[3].receipt, states, links[3].records, {**links[3].indexes, **links[2].indexes})
    chains.seal(place / "odd.qb", 23, states, mixed)
    fails(place, "restore --to to --only d2 0.qb 1.qb 2.qb 3.qb odd.qb", 4, "is an increment of another volume")


def test_an_older_shorter_chain_is_noticed_with_a_receipt(place: Path, links: list[Link]) -> None:
    receipt, identity = "--expect 2.receipt", f"--expect-id {links[2].backup_id}"
    done = backup(place, f"restore --to to --only d2 {receipt} {identity} 0.qb 1.qb 2.qb")
    assert (done.returncode, done.stderr) == (0, b"")
    for words in (f"restore --to to {receipt}", f"verify {receipt}", f"list {receipt}", f"restore --to to {identity}"):
        fails(place, f"{words} 0.qb 1.qb", 5, f"the backup ID {links[1].backup_id}, not")


def test_other_content_under_the_header_of_the_receipt(place: Path, links: list[Link]) -> None:
    """Whoever knows the passphrase can make it; the manifest of the receipt is another one then."""
    text = (place / "2.receipt").read_bytes()
    digest = links[2].receipt.manifest.encode()
    assert text.count(digest) == 1
    (place / "other.receipt").write_bytes(text.replace(digest, digest[::-1]))
    said = "the manifest of the archive differs from the receipt"
    for command in ("restore --to to", "verify", "list"):
        fails(place, f"{command} --expect other.receipt 0.qb 1.qb 2.qb", 4, said)
    assert not (place / "to").exists()


@pytest.mark.parametrize(
    ("how", "name"),
    [
        *(("flip", "0.qb"), ("flip", "1.qb"), ("flip", "2.qb")),
        *(("cut", "0.qb"), ("manifest", "1.qb"), ("cut", "2.qb")),
    ],
)
def test_damage_in_any_archive(place: Path, links: list[Link], how: str, name: str) -> None:
    data = bytearray((place / name).read_bytes())
    at = data.index(b"private.img.000.enc") + 512 + 300
    if how == "flip":
        data[at] ^= 1
    elif how == "manifest":
        data[data.index(b"qb-manifest.000.enc") + 700] ^= 1
    else:
        del data[at:]
    files = ["0.qb", "1.qb", "2.qb"]
    files[files.index(name)] = "bad.qb"
    (place / "bad.qb").write_bytes(data)
    message = {"flip": "does not authenticate: the archive is damaged here"}.get(how, "bad.qb: ")
    done = backup(place, f"restore --to to {' '.join(files)}")
    lines = done.stderr.decode().splitlines()
    assert (done.returncode, len(lines)) == (4, 1), lines
    assert message in lines[0]
    if how == "flip":  # the volume before it is complete
        assert restored(place) == {ROOT: links[2].states[ROOT]}
    else:
        assert not (place / "to").exists()
    if (how, name) not in (("flip", "0.qb"), ("flip", "2.qb")):  # each archive is verified like any other
        fails(place, f"verify {' '.join(files)}", 4, message)


def test_archives_that_cannot_be_in_a_chain(place: Path, links: list[Link]) -> None:
    fails(place, "restore --to to 0.qb - <1.qb", 2, "several archives cannot come on standard input")
    fails(place, "restore --to to 0.qb missing.qb", 1, "cannot read missing.qb")
    fails(place, "restore --to to --at x 0.qb", 2, "--at needs several archives")
    (place / "text").write_text("hello\n" * 1000)
    fails(place, "restore --to to 0.qb text", 4, "text: ")


def test_all_archives_together_stay_below_the_limit_of_memory(place: Path, links: list[Link]) -> None:
    """One key at a time is derived where there is no memory for more; the chunks need theirs at the same time."""
    fails(place, "restore --to to --max-memory 1120K 0.qb 1.qb 2.qb", 5, "3 archives need 2 MiB of memory together")
    done = backup(place, "verify --max-memory 1120K 0.qb 1.qb 2.qb")
    assert (done.returncode, done.stderr) == (0, b""), "it opens one archive after the other"
    done = backup(place, "restore --to to --max-memory 2M --only d1:private 0.qb 1.qb 2.qb")
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    assert restored(place) == {PRIVATE: links[2].states[PRIVATE]}


def test_other_passphrases(place: Path, links: list[Link]) -> None:
    (place / "wrong").write_bytes(b"wrong")
    (place / "wrong").chmod(0o600)
    fails(place, "restore --to to --passphrase-file wrong 0.qb 1.qb", 3, "0.qb: the passphrase is wrong")
    done = backup(place, "restore --to to --only d1:private --passphrase-file <(cat passphrase) 0.qb 1.qb")
    assert (done.returncode, done.stderr) == (0, b""), done.stderr
    done = backup(place, "restore --to to --only d1:private --passphrase-fd 7 0.qb 1.qb 7<passphrase")
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_target_that_exists_stays(place: Path, links: list[Link]) -> None:
    done = bash(
        f"cd {place} && rm -rf to && mkdir -p to/d1 && echo mine >to/d1/root.img"
        " && qb-backup restore --to to 0.qb 1.qb",
        QB_PASSPHRASE_FILE="passphrase",
    )
    assert done.returncode == 5
    assert b"already exists" in done.stderr
    assert (place / "to/d1/root.img").read_text() == "mine\n"
    done = bash(
        f"cd {place} && qb-backup restore --overwrite --to to 0.qb 1.qb; cp 0.qb c.qb;"
        " qb-backup restore --overwrite --map d1:root=c.qb --to to c.qb 1.qb",
        QB_PASSPHRASE_FILE="passphrase",
    )
    assert done.returncode == 5
    assert b"cannot be written over the archive" in done.stderr
    assert restored(place) == links[1].states


@pytest.fixture(scope="module")
def large(place: Path) -> str:
    """A chain with more data than the pipes hold: qb-unseal still has some of it when the next stage waits."""
    full = chains.seal(place / "large0.qb", 1, {ROOT: os.urandom(6_000_000)})
    chains.seal(place / "large1.qb", 2, {ROOT: os.urandom(6_000_000)}, full)
    return f"{place}/large0.qb {place}/large1.qb"


@pytest.mark.parametrize("stage", ["qb-unseal", "qb-decompress", "qb-merge", "qb-volwrite"])
def test_a_stage_that_dies(place: Path, large: str, tmp_path: Path, stage: str) -> None:
    """However a stage of the last pipe dies, no target has its name, and the status is 1."""
    with Running(tmp_path, QB_PASSPHRASE_FILE=str(place / "passphrase")) as running:
        running.hold_in(ROOT, 2000)  # before, others read the metadata
        running.start(f"exec qb-backup restore --to to {large}")
        running.hold()
        # Before it has a compressor that ends with it, nothing is killed.
        wait_until(lambda: len(running.processes("valve")) == 2, "the valves of both archives")
        kill(running.some(stage)[0], signal.SIGKILL)
        for _archive in range(2):
            running.release()
        status, said = running.end()
        running.gone()
    assert status in (1, 137), said
    assert restored(tmp_path) == {}
    assert said.count(": error: ") == 1, said  # bash may say too that a stage was killed


@pytest.mark.parametrize(("number", "place_of"), [(0, "full"), (1, "middle")])
def test_an_archive_that_changes_after_its_beginning_was_read(
    place: Path, links: list[Link], tmp_path: Path, number: int, place_of: str
) -> None:
    """Into another one of the same backup, in the same file. What was compared is what is opened."""
    copy_of(tmp_path, "bin", "qbtools")
    (tmp_path / "bin/qb-unseal").rename(tmp_path / "bin/real")
    text = f'#!/bin/sh\ncat >words && cat other.qb >{number}.qb && exec qb-real "$1" words\n'
    (tmp_path / "bin/qb-unseal").write_text(text)
    (tmp_path / "bin/qb-unseal").chmod(0o755)
    (tmp_path / "bin/qb-real").write_text((tmp_path / "bin/real").read_text())
    (tmp_path / "bin/qb-real").chmod(0o755)
    for name in ("0.qb", "1.qb", "2.qb"):
        (tmp_path / name).write_bytes((place / name).read_bytes())
    states = {**links[number].states, ROOT: b"evil" * 1000}
    chains.seal(tmp_path / "other.qb", number + 1, states, links[0] if number else None)
    secret = {"QB_PASSPHRASE_FILE": f"{place}/passphrase"}
    done = bash(f"cd {tmp_path} && bin/qb-backup restore --to to 0.qb 1.qb 2.qb", **secret)
    assert done.returncode == 4, done.stderr.decode()
    assert b"differs from the receipt" in done.stderr, done.stderr.decode()
    assert not (tmp_path / "to" / ROOT).exists()


@pytest.fixture
def commanded(tmp_path: Path) -> None:
    """0.qb and 1.qb in tmp_path: a chain that `--key-command 'base64 -d'` opens."""
    (tmp_path / "a").touch()
    words = "-q --key-command base64 --series series"
    done = bash(f"cd {tmp_path} && mkdir -m 700 series && for n in 0 1; do qb-backup create {words} -o $n.qb a; done")
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_daemon_of_the_command_for_the_key_lives_on(commanded: None, tmp_path: Path) -> None:
    """Such as an agent. It is no part of a run that fails."""
    (tmp_path / "key").write_text("setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! >>agents; base64 -d\n")
    done = bash(
        f"cd {tmp_path} && qb-backup restore --to to --any-writer --key-command '. ./key' --only none 0.qb 1.qb"
    )
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, b"qb-backup: error: the archive has no domain none")
    agents = [int(pid) for pid in (tmp_path / "agents").read_text().split()]
    assert len(agents) == 2
    for pid in agents:
        os.kill(pid, signal.SIGKILL)  # fails if it has ended


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_output_that_is_closed(place: Path, links: list[Link], tmp_path: Path, closed: str) -> None:
    files = " ".join(f"{place}/{number}.qb" for number in range(3))
    text = f"cd {tmp_path} && timeout 60 qb-backup restore --to to {files} {closed}"
    assert bash(text, QB_PASSPHRASE_FILE=f"{place}/passphrase").returncode == 0
    assert restored(tmp_path) == links[2].states


def test_the_shell_that_gives_the_words_dies(commanded: None, tmp_path: Path) -> None:
    """Nothing is damaged, so it is no damage."""
    with Running(tmp_path) as running:
        command = "echo >>asked; until [ -e given ]; do sleep 0.1; done; base64 -d"
        running.start(f"exec qb-backup restore --to to --any-writer --key-command '{command}' 0.qb 1.qb")
        wait_until((tmp_path / "asked").exists, "the command for the key")
        found: list[int] = []

        def beside_qb_unseal() -> bool:
            shells = {processtree._state_and_parent(pid)[1] for pid in running.processes("qb-unseal")}
            found[:] = [
                pid for pid in running.processes("qb-backup") if processtree._state_and_parent(pid)[1] in shells
            ]
            return len(found) == 1

        wait_until(beside_qb_unseal, "the shell that waits for the words")
        kill(found[0], signal.SIGKILL)
        (tmp_path / "given").touch()
        status, said = running.end()
        running.gone()
    assert status == 1, said
    assert "qb-backup: error: a stage ended with status 4" in said, said


@pytest.mark.parametrize("command", ["restore --to to", "merge -q --logn 10 -o new.qb"])
@pytest.mark.parametrize("stage", ["exit 1", "kill -9 $$"])
def test_a_qb_unseal_that_cannot_start(
    place: Path, links: list[Link], tmp_path: Path, command: str, stage: str
) -> None:
    """It reports nothing itself."""
    copy_of(tmp_path, "bin", "qbtools")
    (tmp_path / "bin/qb-unseal").write_text(f"#!/bin/sh\n{stage}\n")
    files = " ".join(f"{place}/{number}.qb" for number in range(3))
    done = bash(
        f"cd {tmp_path} && timeout 60 bin/qb-backup {command} {files}", QB_PASSPHRASE_FILE=f"{place}/passphrase"
    )
    assert done.returncode == 1, done.stderr.decode()
    how = "ended with status 1" if stage == "exit 1" else "was killed by SIGKILL"
    *said, message = done.stderr.decode().splitlines()
    assert message == f"qb-backup: error: a stage {how}"
    assert bool(said) == (stage != "exit 1"), "bash tells that one was killed"
    assert not (tmp_path / "to").exists()
    assert not (tmp_path / "new.qb").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_end_while_the_beginnings_are_read(commanded: None, tmp_path: Path, number: int) -> None:
    """The stages run already, and wait for their words."""
    with Running(tmp_path) as running:
        process = running.start(
            "exec qb-backup restore --to to --any-writer --key-command 'echo >asked; sleep 1000' 0.qb 1.qb"
        )
        wait_until((tmp_path / "asked").exists, "the command for the key")
        wait_until(lambda: bool(running.processes("qb-unseal")), "qb-unseal")
        process.send_signal(number)
        assert process.wait(60) == -number
        wait_until(lambda: not running.processes("qb-unseal") + running.processes("qb-backup"), "their end")
        if number != signal.SIGKILL:  # it leaves the command for the key
            assert running.end() == (-number, "")
            running.gone()
    assert not (tmp_path / "to").exists()


def test_archives_for_a_recipient_need_proof_of_their_writer(tmp_path: Path) -> None:
    """The receipt of the last archive proves all of them, because each names the manifest of its base. With a list of
    signers each must be signed; 2.qb is not."""
    recipient = identities.age(tmp_path / "identity")
    (tmp_path / "signers").write_text(f"me {identities.ssh(tmp_path / 'key', 'ed25519')}\n")
    data = os.urandom(100_000)
    (tmp_path / "root.img").write_bytes(data)
    (tmp_path / "series").mkdir(mode=0o700)
    for number, sign in enumerate(("--sign key", "--sign key", "")):
        words = f"-q -r {recipient} --series series --receipt {number}.receipt -o {number}.qb {sign} d1:root=root.img"
        done = bash(f"cd {tmp_path} && qb-backup create {words}")
        assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
        (tmp_path / "root.img").write_bytes(data[:-3] + b"new")
    pipes = "0.qb <(cat 1.qb)"
    for words, status in (
        ("1.qb 0.qb", 5),
        ("--expect 0.receipt 1.qb 0.qb", 5),
        (f"--expect 1.receipt {pipes}", 5),  # nothing names the first one before it is read
        ("--signers signers 0.qb 1.qb 2.qb", 5),
        (f"--signers signers {pipes} <(cat 2.qb)", 5),
        ("--expect 1.receipt 1.qb 0.qb", 0),
        (f"--any-writer --overwrite {pipes}", 0),
        ("--signers signers --overwrite 1.qb 0.qb", 0),
    ):
        done = bash(f"cd {tmp_path} && qb-backup restore -i identity --to to {words}")
        assert done.returncode == status, done.stderr.decode()
        assert (tmp_path / "to").exists() == (status == 0)
    assert restored(tmp_path) == {ROOT: (tmp_path / "root.img").read_bytes()}
