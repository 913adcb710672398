"""qb-backup with archives from pipes: each is read once, in the order of the chain, and is checked on the way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from pathlib import Path

import chains
import pytest
from chains import OTHER, PRIVATE, ROOT, Link, backup, fails, restored
from running import Running, kill, wait_until, words
from support import environment


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chains.with_passphrase(tmp_path_factory.mktemp("piped"))


@pytest.fixture(scope="module")
def links(place: Path) -> list[Link]:
    return chains.five(place)


def piped(*names: str) -> str:
    """Archives as process substitutions."""
    return " ".join(f"<(cat {name}.qb)" for name in names)


def test_fifos_files_and_process_substitutions(place: Path, links: list[Link]) -> None:
    """The fourth one has a volume whole, and lacks another one."""
    fifos = "rm -f f g; mkfifo f g; cat 1.qb >f & cat 4.qb >g &"
    done = backup(place, f"--version >/dev/null; {fifos} qb-backup restore --to to <(cat 0.qb) f 2.qb <(cat 3.qb) g")
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    assert restored(place) == links[4].states


def test_sockets(place: Path, links: list[Link]) -> None:
    ours, theirs = socket.socketpair()
    writer = threading.Thread(target=lambda: (ours.sendall((place / "1.qb").read_bytes()), ours.close()))
    writer.start()
    theirs.setblocking(False)
    done = subprocess.run(
        ["qb-backup", "list", "0.qb", f"/dev/fd/{theirs.fileno()}"],
        cwd=place,
        capture_output=True,
        pass_fds=[theirs.fileno()],
        env=environment(QB_PASSPHRASE_FILE="passphrase"),
        check=False,
    )
    writer.join()
    theirs.close()
    assert (done.returncode, done.stderr) == (0, b"")
    assert [line.split(b"\t")[3].decode() for line in done.stdout.splitlines()] == list(links[1].states)


def test_verify_reads_one_after_the_other(place: Path, links: list[Link]) -> None:
    done = backup(place, f"verify -v --expect 2.receipt {piped('0', '1', '2')}")
    assert done.returncode == 0, done.stderr.decode()
    said = done.stderr.decode().splitlines()
    assert [line.split(", made")[0] for line in said if ", complete" in line] == [
        "qb-backup: /dev/fd/63: 2 files, 273.4 KiB",
        "qb-backup: /dev/fd/62: 3 files, 318.6 KiB",
        "qb-backup: /dev/fd/61: 3 files, 355.9 KiB",
    ]
    assert b"warning" not in done.stderr


def test_the_order_counts(place: Path, links: list[Link]) -> None:
    fails(place, f"restore --to to {piped('1', '0')}", 4, "/dev/fd/63 comes where /dev/fd/62 must come")
    fails(place, f"restore --to to 0.qb 2.qb {piped('1')}", 4, "2.qb comes where /dev/fd/63 must come")
    fails(place, f"verify {piped('0', '2')}", 4, f"the backup {links[1].backup_id} is missing: it is the base of /dev/")
    fails(place, f"list 0.qb {piped('1', '1')}", 4, f"are both the backup {links[1].backup_id}")


def test_archives_that_do_not_belong_together(place: Path, links: list[Link]) -> None:
    full = chains.seal(place / "a.qb", 11, links[0].states)
    chains.seal(place / "b.qb", 12, links[1].states, full)
    fails(place, f"restore --to to {piped('0', 'b')}", 4, f"the backup {full.backup_id} is missing")
    chains.seal(place / "fork.qb", 21, links[1].states, links[0])
    fails(place, f"restore --to to {piped('0', '1', 'fork')}", 2, "the archives have several last states")


def test_what_needs_regular_files(place: Path, links: list[Link]) -> None:
    fails(place, f"restore --to to --at x {piped('0', '1')}", 2, "--at needs archives in regular files")
    words = "restore --host dir:to --yes --keep-going"
    fails(place, f"{words} {piped('0', '1')}", 2, "--keep-going needs archives in regular files")
    fails(place, f"merge -o new.qb {piped('0', '1')}", 2, "is not a regular file: archives can be merged from files")
    fails(place, "restore --to to 0.qb .", 1, ". is a directory")
    endless = "<(head -c 1024 1.qb; cat /dev/zero)"
    fails(place, f"list 0.qb {endless}", 4, "/dev/fd/63: not a backup: its beginning does not end")
    full = chains.seal(place / "m0.qb", 1, links[0].states, metadata=False)
    chains.seal(place / "m1.qb", 2, links[0].states, full, metadata=False)
    fails(place, f"restore --to to {piped('m0', 'm1')}", 5, "/dev/fd/62 has no metadata")


def test_a_base_that_was_sealed_again_under_its_id(place: Path, links: list[Link]) -> None:
    chains.seal(place / "again.qb", 1, {**links[0].states, ROOT: b"evil" * 1000})
    fails(place, f"verify {piped('again', '1', '2')}", 4, "/dev/fd/63 is not the base of /dev/fd/62, but another")
    fails(place, f"restore --to to {piped('again', '1', '2')}", 4, f"{ROOT} is an increment of another volume")
    chains.seal(place / "middle.qb", 2, {**links[1].states, ROOT: b"evil" * 1000}, links[0])
    fails(place, f"restore --to to {piped('0', 'middle', '2')}", 4, f"{ROOT} is an increment of another volume")


def test_a_base_of_which_nothing_is_used(place: Path, links: list[Link]) -> None:
    """What is restored is right, but the archive is not what it seems: the run fails."""
    chains.seal(place / "unused.qb", 1, links[0].states)
    whole = chains.seal(place / "whole.qb", 2, links[1].states, links[0], whole=list(links[1].states))
    done = backup(place, f"restore --to to {piped('unused', 'whole')}")
    said = "qb-backup: error: /dev/fd/63 is not the base of /dev/fd/62, but another archive of the backup "
    assert (done.returncode, done.stderr.decode()) == (4, f"{said}{links[0].backup_id}\n")
    assert restored(place).items() <= whole.states.items()


def test_increments_of_something_else(place: Path, links: list[Link]) -> None:
    """A liar says that it follows another archive; odd has an increment where its base has nothing."""
    chains.seal(place / "liar.qb", 22, {**links[0].states, PRIVATE: b"x" * 9000}, links[0], lie=links[1].base)
    fails(place, f"restore --to to {piped('0', '1', 'liar')}", 4, "has the same base as a stream before it")
    states = {**links[3].states, OTHER: b"y" * 9000}
    mixed = Link(links[3].path, links[3].receipt, states, links[3].records, {**links[3].indexes, **links[2].indexes})
    chains.seal(place / "odd.qb", 23, states, mixed)
    message = f"{OTHER} is an increment of another volume"
    fails(place, f"restore --to to --only d2 {piped('1', '2', '3', 'odd').replace('<', '0.qb <', 1)}", 4, message)


def test_a_machine_that_was_added_in_the_middle(place: Path) -> None:
    """The full archive waits with the third machine while the new one is restored."""
    first = {"vm1/root.img": os.urandom(9000), "vm3/root.img": os.urandom(300_000)}
    full = chains.seal(place / "n0.qb", 1, first)
    states = {"vm1/root.img": b"x" * 9000, "vm2/root.img": b"new" * 3000, "vm3/root.img": b"z" * 9000}
    chains.seal(place / "n1.qb", 2, states, full)
    done = backup(place, f"restore --to to {piped('n0', 'n1')}")
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    assert restored(place) == states


@pytest.mark.parametrize("name", ["0", "2"])
def test_a_writer_that_dies_in_the_middle(place: Path, links: list[Link], name: str) -> None:
    """The volume before is complete."""
    data = (place / f"{name}.qb").read_bytes()
    at = data.index(b"private.img.000.enc") + 512 + 300
    cut = piped("0", "1", "2").replace(f"cat {name}.qb", f"head -c {at} {name}.qb")
    done = backup(place, f"restore --to to {cut}")
    said = "qb-unseal: error: the archive ends in the middle of vm1/private.img.000.enc\n"
    assert (done.returncode, done.stderr.decode()) == (4, said)
    assert restored(place) == {ROOT: links[2].states[ROOT]}


def test_an_archive_that_ends_where_its_manifest_must_be(place: Path, links: list[Link]) -> None:
    """All volumes are restored before this is known, and they are right."""
    at = (place / "1.qb").read_bytes().index(b"qb-manifest.000.enc")
    done = backup(place, f"restore --to to <(cat 0.qb) <(head -c {at} 1.qb) <(cat 2.qb)")
    assert (done.returncode, b"manifest" in done.stderr, done.stderr.count(b"\n")) == (4, True, 1), done.stderr
    assert restored(place).items() <= links[2].states.items()


def test_a_volume_without_its_last_chunk(place: Path, links: list[Link]) -> None:
    """It may have failed when it was saved. That is only known at the end of the archive."""
    data = (place / "0.qb").read_bytes()
    cut = data[: data.rindex(b"vm1/root.img.")] + data[data.index(b"vm1/private.img.000.enc") :]
    (place / "short.qb").write_bytes(cut)
    message = "/dev/fd/63: vm1/root.img: its last chunk is missing"
    fails(place, f"restore --to to {piped('short', '1')}", 4, message)


def test_memory_and_passphrases(place: Path, links: list[Link]) -> None:
    three = piped("0", "1", "2")
    fails(place, f"restore --to to --max-memory 1028K {three}", 5, "3 archives need 2 MiB of memory together")
    done = backup(place, f"restore --to to --only d2 --passphrase-fd 7 --max-memory 2M {three} 7<passphrase")
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    assert restored(place) == {OTHER: links[2].states[OTHER]}
    (place / "wrong").write_bytes(b"wrong")
    (place / "wrong").chmod(0o600)
    fails(place, f"restore --to to --passphrase-file wrong {three}", 3, "/dev/fd/63: the passphrase is wrong")


@pytest.fixture(scope="module")
def large(place: Path) -> list[str]:
    """A chain with more data than the pipes hold."""
    full = chains.seal(place / "large0.qb", 1, {ROOT: os.urandom(6_000_000)})
    chains.seal(place / "large1.qb", 2, {ROOT: os.urandom(6_000_000)}, full)
    return [f"{place}/large0", f"{place}/large1"]


@pytest.mark.parametrize("stage", ["cat", "qb-merge", "qb-run"])
def test_a_stage_that_dies(large: list[str], place: Path, tmp_path: Path, stage: str) -> None:
    """However a stage dies, no target has its name. cat: it gives what was read of a pipe, and the rest."""
    with Running(tmp_path, QB_PASSPHRASE_FILE=str(place / "passphrase")) as running:
        running.hold_in(ROOT, 2000)
        running.start(f"exec qb-backup restore --to to {piped(*large)}")
        running.hold()
        wait_until(lambda: len(running.processes("valve")) == 2, "the valves of both archives")
        kill(next(pid for pid in running.some(stage) if "large" not in words(pid)[-1]), signal.SIGKILL)
        for _archive in range(2):
            running.release()
        status, said = running.end()
        running.gone()
    assert status in {"cat": (4,), "qb-run": (-9,)}.get(stage, (1, 137)), said
    assert restored(tmp_path) == {}
    assert said.count(": error: ") == (stage != "qb-run"), said
