"""Receipts: what --receipt writes, and what --expect notices, for every program that reads archives."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import tarfile
from pathlib import Path

import identities
import pytest
from hostdirs import Machine, make_host
from running import Running, kill
from support import bash
from vectors import archivebytes as made
from vectors.archivebytes import Pieces
from version3 import Maker

CHUNK = 65_536
CREATE = f"qb-backup create -q --logn 10 --chunk-size {CHUNK}"
UNCOUNTED = ("qb-key.age", "qb-key.scrypt", "qb-key.command", "qb-signature")
NO_ROOM = "No space left on device"
READERS = {
    "structure": "qb-unseal --structure EXPECT <ARCHIVE",
    "list": "qb-unseal --list EXPECT <ARCHIVE",
    "verify": "qb-unseal --verify EXPECT <ARCHIVE",
    "one file": "qb-unseal EXPECT vm1/root.img <ARCHIVE >/dev/null",
    "to a command": "qb-unseal --to-command 'cat >/dev/null' EXPECT <ARCHIVE",
    "header": "qb-header read EXPECT ARCHIVE",
    "backup list": "qb-backup list EXPECT ARCHIVE",
    "backup verify": "qb-backup verify EXPECT ARCHIVE",
    "backup restore": "rm -rf to; qb-backup restore --to to EXPECT ARCHIVE",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive a.qb and its receipt; b.qb of another backup; c.qb another one of the same ID; bad receipts."""
    place = tmp_path_factory.mktemp("receipts")
    (place / "root.img").write_bytes(os.urandom(300_000))
    (place / "other.img").write_bytes(os.urandom(1000))
    (place / "passphrase").write_bytes(made.PASSPHRASE)
    (place / "passphrase").chmod(0o600)
    again = f"qb-seal --logn 10 --chunk-size {CHUNK} --complete --receipt c.receipt --backup-id $(cat id) vm1/root.img"
    done = bash(
        f"""cd {place} && {CREATE} --receipt a.receipt --id-file id -o a.qb vm:root=root.img two:root=other.img &&
        {CREATE} --receipt b.receipt -o b.qb vm:root=root.img &&
        qb-volread root.img | qb-tarwrite vm1/root.img | gzip | {again} >c.qb""",
        QB_PASSPHRASE_FILE="passphrase",
    )
    assert (done.returncode, done.stderr) == (0, b"")
    text = (place / "a.receipt").read_text()
    (place / "cut.receipt").write_text(text.removesuffix("end\n"))
    (place / "doubled.receipt").write_text(text.replace("bytes ", f"{text.splitlines()[2]}\nbytes "))
    (place / "malformed.receipt").write_text(text.replace("manifest ", "manifest x"))
    (place / "empty.receipt").write_text("")
    digit = "1" if text.split("header ")[1][0] == "0" else "0"
    (place / "header.receipt").write_text(f"{text.split('header ')[0]}header {digit}{text.split('header ')[1][1:]}")
    (place / "id.receipt").write_text(text.replace((place / "id").read_text().strip(), made.ID))
    for word in ("manifest", "content"):
        before, after = text.split(f"{word} ")
        (place / f"{word}.receipt").write_text(f"{before}{word} {'1' if after[0] == '0' else '0'}{after[1:]}")
    (place / "bytes.receipt").write_text(text.replace("\nbytes ", "\nbytes 1"))
    return place


def outcome(place: Path, command: str, **changes: str) -> tuple[int, str]:
    """The status and the error line of a command in place."""
    done = bash(f"cd {place} && {command}", **{"QB_PASSPHRASE_FILE": "passphrase", **changes})
    lines = [line for line in done.stderr.decode().splitlines() if ": error: " in line]
    assert len(lines) == (done.returncode != 0), done.stderr
    return done.returncode, lines[0].partition(": error: ")[2] if lines else ""


def read(place: Path, reader: str, archive: str, receipt: str, **changes: str) -> tuple[int, str]:
    words = READERS[reader].replace("EXPECT", f"--expect {receipt}").replace("ARCHIVE", archive)
    return outcome(place, words, **changes)


def pieces_of(path: Path) -> Pieces:
    with tarfile.open(path) as archive:
        return [(info.name, archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr]


def receipt_of(pieces: Pieces, backup_id: str) -> str:
    """The receipt, computed according to the format."""
    counted = [(name, data) for name, data in pieces if name not in UNCOUNTED]
    content = hashlib.sha256(b"".join(b"%s\0%d\0%s" % (name.encode(), len(data), data) for name, data in counted))
    named = dict(pieces)
    head = hashlib.sha256(named["backup-header"] + named["backup-header.hmac"]).hexdigest()
    manifest = hashlib.sha256(named["qb-manifest.000.enc"]).hexdigest()
    size = sum(len(data) for _, data in counted)
    return (
        f"qb-receipt 1\nbackup-id {backup_id}\nheader {head}\nmanifest {manifest}\n"
        f"content {content.hexdigest()}\nbytes {size}\nend\n"
    )


# --- what is written ---


@pytest.mark.parametrize("name", ["a", "c"])
def test_what_a_receipt_says(name: str, folder: Path) -> None:
    """Of qb-backup and of qb-seal."""
    assert (folder / f"{name}.receipt").read_text() == receipt_of(
        pieces_of(folder / f"{name}.qb"), (folder / "id").read_text().strip()
    )
    assert (folder / f"{name}.receipt").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("jobs", [1, 4])
def test_an_archive_on_standard_output(jobs: int, folder: Path, tmp_path: Path) -> None:
    words = f"{CREATE} -j {jobs} --receipt {tmp_path}/r vm:root=root.img | cat >{tmp_path}/a.qb"
    assert outcome(folder, words) == (0, "")
    assert read(folder, "structure", f"{tmp_path}/a.qb", f"{tmp_path}/r") == (0, "")


def test_a_receipt_can_be_written_to_a_pipe_and_read_from_one(folder: Path, tmp_path: Path) -> None:
    words = f"{CREATE} -o {tmp_path}/a.qb --receipt >(cat >{tmp_path}/r; echo >{tmp_path}/done) vm:root=root.img"
    assert outcome(folder, f"{words} && until test -e {tmp_path}/done; do sleep 0.01; done") == (0, "")
    for reader in ("structure", "to a command", "header", "backup verify"):
        assert read(folder, reader, f"{tmp_path}/a.qb", f"<(cat {tmp_path}/r)") == (0, "")


def test_of_files_from_a_command_some_of_which_fail(folder: Path, tmp_path: Path) -> None:
    """The archive is complete without them, and the status reports the failure."""
    (tmp_path / "list").write_text("a/good\techo\na/bad\tfalse\nend\n")
    words = f"qb-seal --opaque --logn 10 --chunk-size {CHUNK} --keep-going --receipt {tmp_path}/r"
    words += f" --from-command 'echo x; $QB_SOURCE' {tmp_path}/list >{tmp_path}/a.qb"
    done = bash(f"cd {folder} && {words}", QB_PASSPHRASE_FILE="passphrase")
    assert done.returncode == 1
    assert read(folder, "structure", f"{tmp_path}/a.qb", f"{tmp_path}/r") == (0, "")
    words = f"qb-unseal --structure --expect {tmp_path}/r <{tmp_path}/a.qb"
    with tarfile.open(tmp_path / "a.qb") as archive:
        if "a/bad.000.enc" in archive.getnames():
            warned = bash(words).stderr.decode()
            assert warned == "qb-unseal: warning: a/bad is incomplete: it failed when it was saved\n"


def test_only_for_a_complete_archive(folder: Path) -> None:
    done = outcome(folder, f"qb-seal --receipt new --backup-id {made.ID} a </dev/null | cat")
    assert done == (2, "--receipt needs a complete archive")
    assert not (folder / "new").exists()


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("qb-seal --receipt= a </dev/null | cat", "--receipt"),
        (f"{CREATE} --receipt= -o new.qb root.img", "--receipt"),
        ("qb-unseal --expect= --list <a.qb", "--expect"),
        ("qb-unseal --expect= --structure <a.qb", "--expect"),
        ("qb-header read --expect= a.qb", "--expect"),
        ("qb-key show --expect= <a.qb", "--expect"),
        ("qb-backup verify --expect= a.qb", "--expect"),
    ],
)
def test_an_empty_name(command: str, option: str, folder: Path) -> None:
    assert outcome(folder, command) == (2, f"{option}: the name is empty")
    assert not list(folder.glob("new*"))


@pytest.mark.parametrize(
    ("command", "same"),
    [
        ("qb-seal --receipt FILE a </dev/null >FILE", "the archive"),
        ("qb-seal --receipt FILE a <FILE | cat", "standard input"),
        ("qb-seal --receipt ./FILE --from-command true FILE | cat", "the list"),
        ("qb-seal --receipt FILE --record FILE a </dev/null | cat", "that of --record"),
        ("qb-seal --receipt FILE --report FILE a </dev/null | cat", "that of --report"),
        ("qb-seal --receipt passphrase --passphrase-file passphrase a </dev/null | cat", "the passphrase"),
        ("qb-seal --receipt FILE -R ./FILE a </dev/null | cat", "the recipients ./FILE"),
        ("qb-seal --receipt FILE --sign ./FILE a </dev/null | cat", "the key of --sign"),
        (f"{CREATE} --receipt FILE -o new.qb FILE", "the VOLUME FILE"),
        (f"{CREATE} --receipt FILE -R ./FILE -o new.qb root.img", "the recipients ./FILE"),
        (f"{CREATE} --receipt FILE --sign ./FILE -o new.qb root.img", "the signing key"),
        (f"{CREATE} --receipt new.qb -o new.qb root.img", "the archive"),
        (f"{CREATE} --receipt new.qb.partial -o new.qb root.img", "the archive before it is complete"),
        (f"{CREATE} --receipt new --id-file ./new -o new.qb root.img", "that of --id-file"),
        (f"{CREATE} --receipt passphrase --passphrase-file passphrase -o new.qb root.img", "the passphrase"),
    ],
)
def test_a_file_that_the_run_needs_is_refused(command: str, same: str, folder: Path) -> None:
    (folder / "FILE").write_text("precious")
    before = (folder / "passphrase").read_bytes()
    status, message = outcome(folder, command.replace(">FILE", ">>FILE"))
    assert status == 5 and message.startswith("--receipt ") and message.endswith(f"is the same file as {same}")
    assert (folder / "FILE").read_text() == "precious"
    assert (folder / "passphrase").read_bytes() == before
    assert not list(folder.glob("new*"))


def test_a_file_that_cannot_be_written_is_reported_before_anything_is_read(folder: Path) -> None:
    told = "cannot write none/r: No such file or directory"
    for command in (f"{CREATE} --receipt none/r -o new.qb root.img", "qb-seal --receipt none/r a <root.img | cat"):
        assert outcome(folder, command) == (1, told)
    assert not list(folder.glob("new*"))


def test_no_room_at_the_end(folder: Path, tmp_path: Path) -> None:
    """The archive is complete: it stays, and the message says so."""
    told = f"the archive is complete, but /dev/full cannot be written: {NO_ROOM}"
    for full, other in (("--receipt", "--id-file"), ("--id-file", "--receipt")):
        words = f"{CREATE} {full} /dev/full {other} {tmp_path}/{other} -o {tmp_path}/a.qb root.img"
        assert outcome(folder, words) == (1, told)
        assert outcome(folder, f"qb-unseal --verify <{tmp_path}/a.qb") == (0, "")
        assert (tmp_path / other).exists()
        (tmp_path / "a.qb").unlink()
    words = f"qb-seal --opaque --receipt /dev/full --logn 10 a <root.img >{tmp_path}/b.qb"
    assert outcome(folder, words) == (1, told)
    assert outcome(folder, f"qb-unseal --verify <{tmp_path}/b.qb") == (0, "")


def test_an_older_receipt_is_never_replaced(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "r").write_text("older\n")
    (tmp_path / "r").chmod(0o644)
    expected = (5, f"{tmp_path}/r already exists")
    assert outcome(folder, f"{CREATE} --receipt {tmp_path}/r -o {tmp_path}/a.qb root.img") == expected
    assert outcome(folder, f"qb-seal --opaque --receipt {tmp_path}/r --logn 10 a <root.img | cat") == expected
    assert outcome(folder, f"qb-unseal --structure --receipt {tmp_path}/r <a.qb") == expected
    assert os.listdir(tmp_path) == ["r"]
    assert (tmp_path / "r").read_text() == "older\n"


def test_a_run_that_fails_leaves_no_receipt(folder: Path, tmp_path: Path) -> None:
    assert outcome(folder, f"{CREATE} --receipt {tmp_path}/r -o /dev/full/a root.img")[0] == 1
    assert outcome(folder, f"qb-seal --receipt {tmp_path}/r --logn 10 a </dev/null | cat")[0] == 4
    assert outcome(folder, f"qb-seal --opaque --receipt {tmp_path}/r --logn 10 a <root.img >/dev/full")[0] == 1
    assert os.listdir(tmp_path) == []


# --- of an archive that exists ---


def test_of_an_archive_that_passes(folder: Path, tmp_path: Path) -> None:
    """No key is needed, so it can be one that was composed by hand."""
    assert outcome(folder, f"cat a.qb | tee {tmp_path}/a.qb | qb-unseal --structure --receipt {tmp_path}/r") == (0, "")
    assert (tmp_path / "r").read_text() == (folder / "a.receipt").read_text()
    words = f"qb-unseal --structure --receipt {tmp_path}/r2 --expect"
    assert outcome(folder, f"{words} b.receipt <a.qb")[0] == 5
    assert outcome(folder, f"{words} a.receipt <a.qb") == (0, "")


def test_only_a_whole_archive_gets_a_receipt(folder: Path, tmp_path: Path) -> None:
    words = f"qb-unseal --structure --receipt {tmp_path}/r"
    assert outcome(folder, f"head -c 100000 a.qb | {words}")[0] == 4
    assert outcome(folder, f"{words} </dev/null")[0] == 4
    without = "qb-header write --logn 10 --no-manifest --backup-id i && head -c 1024 /dev/zero"
    assert outcome(folder, f"( {without} ) | {words}") == (
        5,
        "the archive has no manifest, so it cannot have a receipt",
    )
    assert outcome(folder, f"cat a.qb >{tmp_path}/a.qb; {words[:-1]}a.qb <{tmp_path}/a.qb")[0] == 5
    assert os.listdir(tmp_path) == ["a.qb"]
    assert outcome(folder, f"qb-unseal --list --receipt {tmp_path}/r <a.qb")[0] == 2


def test_options_that_need_the_passphrase_do_not_go_with_structure(folder: Path) -> None:
    for option in ("--passphrase-file passphrase", "--passphrase-fd 7", "--key-command cat", "-i key", "-j 2"):
        assert outcome(folder, f"qb-unseal --structure {option} <a.qb")[0] == 2


@pytest.mark.parametrize("killed", ["qb-seal", "qb-store", "qb-run"])
def test_a_killed_run_leaves_no_receipt(killed: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with Running(tmp_path, folder, QB_PASSPHRASE_FILE=str(folder / "passphrase")) as running:
        running.hold_in("vm1/root.img", 150_000)
        running.start(f"{CREATE} --receipt {tmp_path}/out/r -o {tmp_path}/out/a.qb vm:root=root.img")
        running.hold()
        kill(running.one(killed), signal.SIGKILL)
        running.release()
        assert running.end()[0] != 0
        running.gone()
    assert not [name for name in os.listdir(tmp_path / "out") if ".partial" not in name and name[0] != "."]


def test_a_dry_run_writes_none(folder: Path, tmp_path: Path) -> None:
    make_host(tmp_path / "A", [Machine("vm", data={"private": b"data"})])
    assert outcome(folder, f"qb-backup create -n --host {tmp_path}/A --receipt {tmp_path}/r >/dev/null") == (0, "")
    assert os.listdir(tmp_path) == ["A"]


# --- of hosts ---


def test_of_a_host(folder: Path, tmp_path: Path) -> None:
    make_host(tmp_path / "A", [Machine("vm", data={"private": b"data"})])
    words = f"{CREATE} --host {tmp_path}/A --receipt {tmp_path}/r -o {tmp_path}/a.qb"
    assert outcome(folder, words) == (0, "")
    restore = f"qb-backup restore -q --yes --host {tmp_path}/B {tmp_path}/a.qb --expect"
    (tmp_path / "B").mkdir()
    status, message = outcome(folder, f"{restore} b.receipt")
    assert (status, os.listdir(tmp_path / "B")) == (5, [])
    assert "backup ID" in message
    assert outcome(folder, f"{restore} {tmp_path}/r") == (0, "")
    assert os.listdir(tmp_path / "B")


def test_of_each_machine(folder: Path, tmp_path: Path) -> None:
    make_host(tmp_path / "A", [Machine(name, data={"private": name.encode()}) for name in ("one", "two")])
    create = f"{CREATE} --host {tmp_path}/A --each -o {tmp_path}/archives --receipt {tmp_path}/receipts"
    (tmp_path / "archives").mkdir()
    assert outcome(folder, create) == (1, f"cannot write to {tmp_path}/receipts: No such file or directory")
    assert not os.listdir(tmp_path / "archives")
    (tmp_path / "receipts").mkdir()
    (tmp_path / "receipts/two.receipt").mkdir()
    done = bash(f"cd {folder} && {create}", QB_PASSPHRASE_FILE="passphrase")
    assert done.returncode == 1
    told = f"two cannot be saved: {tmp_path}/receipts/two.receipt already exists\n"
    assert told in done.stderr.decode()
    assert os.listdir(tmp_path / "archives") == ["one.qbk"]
    (tmp_path / "receipts/two.receipt").rmdir()
    assert outcome(folder, f"{create} two") == (0, "")
    assert sorted(os.listdir(tmp_path / "receipts")) == ["one.receipt", "two.receipt"]
    for name in ("one", "two"):
        for other in ("one", "two"):
            done = bash(
                f"qb-unseal --structure --expect {tmp_path}/receipts/{name}.receipt <{tmp_path}/archives/{other}.qbk"
            )
            assert done.returncode == (0 if name == other else 5)


def test_a_receipt_of_one_machine_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    """Its archive is complete, and the messages say so."""
    make_host(tmp_path / "A", [Machine("one", data={"private": b"data"})])
    (tmp_path / "archives").mkdir()
    with Running(tmp_path, folder, QB_PASSPHRASE_FILE=str(folder / "passphrase")) as running:
        (tmp_path / "receipts").mkdir()
        running.hold_in("qubes.xml", 100)
        create = f"{CREATE} --host {tmp_path}/A --each --json -o {tmp_path}/archives --receipt {tmp_path}/receipts"
        running.start(f"{create} >{tmp_path}/json")
        running.hold()
        (tmp_path / "receipts/one.receipt").write_text("another run")
        running.release()
        status, errors = running.end()
    problem = f"the archive is complete, but {tmp_path}/receipts/one.receipt cannot be written: File exists"
    assert f"warning: one: {problem}\n" in errors
    assert f"error: 1 of 1 domains have an archive, but no receipt: one ({problem})\n" in errors
    assert status == 1
    (one,) = json.loads((tmp_path / "json").read_text())["domains"]
    assert (one["problem"], one["archive"]) == (problem, f"{tmp_path}/archives/one.qbk")
    assert sorted(os.listdir(tmp_path / "archives")) == ["one.qbk"]
    assert (tmp_path / "receipts/one.receipt").read_text() == "another run"


# --- what is noticed ---


@pytest.mark.parametrize("reader", READERS)
def test_the_archive_of_the_receipt(reader: str, folder: Path) -> None:
    assert read(folder, reader, "a.qb", "a.receipt") == (0, "")


@pytest.mark.parametrize("reader", READERS)
def test_another_archive(reader: str, folder: Path) -> None:
    """It is refused before a passphrase is needed: here there is none, and no terminal."""
    ids = [(folder / f"{name}.receipt").read_text().splitlines()[1].split()[1] for name in "ab"]
    told = f"the archive has the backup ID {ids[1]}, not {ids[0]} as the receipt says"
    assert read(folder, reader, "b.qb", "a.receipt", QB_PASSPHRASE_FILE="") == (5, told)
    told = "the header of the archive differs from the receipt"
    assert read(folder, reader, "c.qb", "a.receipt", QB_PASSPHRASE_FILE="") == (4, told)
    if reader == "backup restore":
        assert not (folder / "to").exists()


@pytest.mark.parametrize("reader", READERS)
def test_bad_receipts(reader: str, folder: Path) -> None:
    kinds = (
        ("cut.receipt", 4, "cut.receipt is incomplete: it does not end with the line `end`"),
        ("none", 1, "cannot read none: No such file or directory"),
        ("doubled.receipt", 4, "doubled.receipt has 8 lines, not 7"),
        ("malformed.receipt", 4, "malformed.receipt is malformed in line 4, where `manifest` must be"),
        ("empty.receipt", 4, "empty.receipt is no receipt of version 1"),
        ("/dev/null", 4, "/dev/null is no receipt of version 1"),
        ("a.qb", 4, "a.qb is no receipt: it has more than 4480 bytes"),
        ("/dev/zero", 4, "/dev/zero is no receipt: it has more than 4480 bytes"),
        (".", 1, "cannot read .: Is a directory"),
    )
    for receipt, status, told in kinds if reader in ("structure", "backup verify") else kinds[:2]:
        # It is read before the archive, which is nothing here.
        archive = "/dev/null" if reader != "backup restore" else "a.qb"
        assert read(folder, reader, archive, receipt) == (status, told)


@pytest.mark.parametrize("reader", READERS)
def test_edited_receipts(reader: str, folder: Path) -> None:
    if not reader.startswith("backup"):  # test_another_archive() has both for all of them
        assert read(folder, reader, "a.qb", "header.receipt")[0] == 4
        assert read(folder, reader, "a.qb", "id.receipt")[0] == 5
    told = "the manifest of the archive differs from the receipt"
    expected = (0, "") if reader == "header" else (4, told)
    assert read(folder, reader, "a.qb", "manifest.receipt") == expected


def test_edited_content(folder: Path) -> None:
    told = "the content of the archive differs from the receipt"
    assert read(folder, "structure", "a.qb", "content.receipt") == (4, told)
    size = int((folder / "a.receipt").read_text().split("\nbytes ")[1].split()[0])
    told = f"the archive has {size} bytes of content, not 1{size} as the receipt says"
    assert read(folder, "structure", "a.qb", "bytes.receipt") == (4, told)


def test_a_bit_of_any_member_without_a_key(folder: Path, tmp_path: Path) -> None:
    """The structure alone does not show it."""
    pieces = pieces_of(folder / "a.qb")
    for at, (name, data) in enumerate(pieces):
        changed = data[:-40] + bytes([data[-40] ^ 1]) + data[-39:]
        (tmp_path / "a.qb").write_bytes(made.archive([*pieces[:at], (name, changed), *pieces[at + 1 :]]))
        without = bash(f"qb-unseal --structure <{tmp_path}/a.qb").returncode
        assert without == 0 or name == "backup-header"
        done = bash(f"qb-unseal --structure --expect {folder}/a.receipt <{tmp_path}/a.qb")
        # The bit is in the backup ID there.
        assert done.returncode in ((4, 5) if name == "backup-header" else (4,)), name


def test_members_dropped_doubled_exchanged_added_and_a_cut(folder: Path, tmp_path: Path) -> None:
    pieces = pieces_of(folder / "a.qb")
    whole = made.archive(pieces)
    changed = [whole[: len(whole) // 2], made.archive(pieces[:-1]), whole + whole, whole[:-1025]]
    last = max(at for at, (name, _data) in enumerate(pieces) if name.startswith("vm1/root.img"))
    for at in (0, 1, 2, 3, 5, last, len(pieces) - 1):  # of chunks in the middle, one is like another
        changed.append(made.archive([*pieces[:at], *pieces[at + 1 :]]))
        changed.append(made.archive([*pieces[:at], pieces[at], *pieces[at:]]))
        changed.append(made.archive([*pieces[:at], ("zz/new.000.enc", made.hostile()), *pieces[at:]]))
        changed.append(made.archive([*pieces[:at], ("qb-key.age", b"x"), *pieces[at:]]))
        if at:
            changed.append(made.archive([*pieces[: at - 1], pieces[at], pieces[at - 1], *pieces[at + 1 :]]))
    for data in changed:
        (tmp_path / "a.qb").write_bytes(data)
        done = bash(f"qb-unseal --structure --expect {folder}/a.receipt <{tmp_path}/a.qb")
        assert (done.returncode, done.stdout) == (4, b""), done.stderr
    (tmp_path / "a.qb").write_bytes(whole)
    assert bash(f"qb-unseal --structure --expect {folder}/a.receipt <{tmp_path}/a.qb").returncode == 0


def test_files_cannot_be_exchanged_even_with_the_passphrase(folder: Path, tmp_path: Path) -> None:
    """Everything with the same header authenticates, but the manifest differs."""
    head = made.header_pair(made.header())
    for name in ("true", "forged"):
        files = made.file("vm1/root.img", name.encode())
        pieces = [*head, *files, made.manifest(files)]
        (tmp_path / f"{name}.qb").write_bytes(made.archive(pieces))
        (tmp_path / f"{name}.receipt").write_text(receipt_of(pieces, made.ID))
    for reader in ("verify", "list", "one file", "to a command", "structure"):
        assert read(folder, reader, f"{tmp_path}/true.qb", f"{tmp_path}/true.receipt") == (0, "")
        status, message = read(folder, reader, f"{tmp_path}/forged.qb", f"{tmp_path}/true.receipt")
        assert (status, "receipt" in message) == (4, True)


def test_wrapping_the_passphrase_again_changes_no_receipt(folder: Path, tmp_path: Path) -> None:
    head = made.header_pair(made.header(more="key=True\nsigned=ssh\n"))
    files = made.file("vm1/root.img", b"content") + made.file("vm2/root.img", b"content")
    signed = ("qb-signature", b"signature")
    wraps: list[Pieces] = [
        [("qb-key.age", b"for one"), signed],
        [("qb-key.age", b"for another one"), signed],
        [("qb-key.scrypt", b"x"), ("qb-key.command", b"y"), signed],
        [("qb-key.age", b"for one"), ("qb-signature", b"another one")],
    ]
    for wrap in wraps:
        pieces = [*head, *wrap, *files, made.manifest(files)]
        (tmp_path / "receipt").write_text(receipt_of([*head, *files, made.manifest(files)], made.ID))
        (tmp_path / "a.qb").write_bytes(made.archive(pieces))
        assert read(folder, "structure", f"{tmp_path}/a.qb", f"{tmp_path}/receipt") == (0, "")


def test_an_archive_that_was_wrapped_for_somebody_else(folder: Path, tmp_path: Path) -> None:
    """A receipt proves who wrote it, so nothing else is needed to open it."""
    for name in ("old", "new"):
        identities.age(tmp_path / name)
    create = f'{CREATE} -r "$(age-keygen -y {tmp_path}/old)" --receipt {tmp_path}/receipt -o {tmp_path}/a.qb'
    assert outcome(folder, f"{create} vm1:root=root.img") == (0, "")
    pieces = pieces_of(tmp_path / "a.qb")
    assert [name for name, _ in pieces][2] == "qb-key.age"
    (tmp_path / "key").write_bytes(pieces[2][1])
    done = bash(f'cd {tmp_path} && age -d -i old key | age -r "$(age-keygen -y new)"')
    assert done.returncode == 0
    (tmp_path / "b.qb").write_bytes(made.archive([*pieces[:2], ("qb-key.age", done.stdout), *pieces[3:]]))
    for archive, identity in (("a.qb", "old"), ("b.qb", "new")):
        for reader in ("structure", "verify", "header", "backup restore") if archive == "b.qb" else ("verify",):
            words = f"{tmp_path}/receipt" + f" -i {tmp_path}/{identity}" * (reader != "structure")
            assert read(folder, reader, f"{tmp_path}/{archive}", words, QB_PASSPHRASE_FILE="") == (0, "")
        words = f"a.receipt -i {tmp_path}/{identity}"
        assert read(folder, "verify", f"{tmp_path}/{archive}", words, QB_PASSPHRASE_FILE="")[0] == 5


def test_a_file_that_is_called_like_a_wrapped_passphrase_counts(folder: Path, tmp_path: Path) -> None:
    """Otherwise it could be exchanged."""
    head = made.header_pair(made.header())
    files = made.file("qb-key", b"content")
    pieces = [*head, *files, made.manifest(files)]
    (tmp_path / "receipt").write_text(receipt_of(pieces, made.ID))
    (tmp_path / "a.qb").write_bytes(made.archive(pieces))
    assert read(folder, "structure", f"{tmp_path}/a.qb", f"{tmp_path}/receipt") == (0, "")


def test_the_end_is_read(folder: Path) -> None:
    told = "--expect does not go with --stop: the end of the archive would not be read"
    assert outcome(folder, "qb-unseal --stop --expect a.receipt vm1/root.img <a.qb | cat") == (2, told)
    for option in ("--expect-id x", "--require-version 4"):
        assert outcome(folder, f"qb-unseal --structure --expect a.receipt {option} <a.qb")[0] == 2


def test_version_3_has_none(folder: Path, tmp_path: Path) -> None:
    maker = Maker(tmp_path)
    header = maker.header()
    (tmp_path / "3.qb").write_bytes(
        made.archive([("backup-header", header), ("backup-header.hmac", maker.hmac(header))])
    )
    for reader in READERS:
        status, message = read(folder, reader, f"{tmp_path}/3.qb", "a.receipt")
        assert (status, "version 3" in message) == (4 if reader == "structure" else 5, True)


def test_a_target_must_not_be_the_receipt(folder: Path, tmp_path: Path) -> None:
    text = (folder / "a.receipt").read_text()
    (tmp_path / "receipt").write_text(text)
    words = f"qb-backup restore --only vm --map vm:root={tmp_path}/receipt --overwrite --expect {tmp_path}/receipt a.qb"
    status, message = outcome(folder, words)
    assert (status, "the receipt" in message) == (5, True)
    assert (tmp_path / "receipt").read_text() == text
