"""Archives of increments: how they are sealed, and all programs that read archives."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import chains
import identities
import increments
import pytest
import signing
from hostdirs import make_host
from support import bash, need, run

from qbtools.formats import manifest

NAME = "vm1/private.img"
FULL = "cat v.img.gz | qb-seal -q --logn 10 --receipt full.receipt vm1/private.img >full.qb"
READERS = {
    "structure": "qb-unseal --structure",
    "structure with a receipt": "qb-unseal --structure --expect inc.receipt",
    "verify": "qb-unseal --verify --expect inc.receipt --expect-id $(cat inc.id) --require-version 4",
    "list": "qb-unseal --list",
    "one file": f"qb-unseal {NAME} | cmp - w.tar.gz",
    "to a command": f"qb-unseal --verify --to-command 'cmp - w.tar.gz && test $QB_VERSION = 104' {NAME}",
    "header": "qb-header read --expect inc.receipt -",
    "key": "qb-key list -q",
    "store": "qb-store -q --overwrite stored.qb && cmp stored.qb inc.qb",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """full.qb and inc.qb, made by hand, with their receipts; w.img is the volume now, and w.tar.gz its increment."""
    folder = tmp_path_factory.mktemp("increments")
    (folder / "passphrase").write_bytes(b"correct horse\n")
    (folder / "passphrase").chmod(0o600)
    old = os.urandom(300_000)
    (folder / "v.img").write_bytes(old)
    (folder / "w.img").write_bytes(old[:100_000] + b"new" + old[100_003:])
    ok(
        folder,
        f"""id=$(qb-header id) && qb-header id >inc.id &&
        qb-volread v.img | qb-delta --index v.index --id $id --name {NAME} | qb-tarwrite {NAME} | gzip |
            qb-seal --logn 10 --backup-id $id --complete --record records --receipt full.receipt {NAME} >full.qb &&
        qb-delta --confirm v.index records && qb-volread w.img | qb-delta --base v.index |
            qb-tarwrite {NAME} | gzip >w.tar.gz &&
        qb-seal --logn 10 --base full.receipt --backup-id $(cat inc.id) --complete --receipt inc.receipt \\
            {NAME} <w.tar.gz >inc.qb""",
    )
    return folder


def ok(folder: Path, text: str) -> str:
    """The output of a command that must succeed without messages."""
    done = bash(f"cd {folder} && {text}", QB_PASSPHRASE_FILE="passphrase")
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    return done.stdout.decode()


def fails(folder: Path, text: str, status: int, message: str) -> None:
    """A command must end with status and one line that contains message."""
    done = bash(f"cd {folder} && {text}", QB_PASSPHRASE_FILE="passphrase")
    lines = done.stderr.decode().splitlines()
    assert done.returncode == status, lines
    assert ": error: " in lines[0] and message in lines[0]
    assert all(line.startswith("hint: ") for line in lines[1:])


def receipt(path: Path) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in path.read_text().splitlines() if " " in line)


def test_the_header_names_the_base(place: Path) -> None:
    said = receipt(place / "full.receipt")
    text = ok(place, "qb-header read inc.qb")
    assert text.startswith("version=104\n")
    assert text.endswith(f"manifest=True\nbase={said['backup-id']}\nbase-manifest={said['manifest']}\n")
    base = {"backup_id": said["backup-id"], "manifest": said["manifest"]}
    assert json.loads(ok(place, "qb-header read --json inc.qb"))["base"] == base
    assert json.loads(ok(place, "qb-header read --json full.qb"))["base"] is None
    assert json.loads(ok(place, "qb-unseal --list --json <inc.qb"))["base"] == base
    assert ok(place, "qb-key list -q <inc.qb").endswith(f"\nbase\t{said['backup-id']}\n")
    assert "base" not in ok(place, "qb-key list -q <full.qb")
    assert json.loads(ok(place, "qb-key list --json <inc.qb"))["base"] == base


@pytest.mark.parametrize("reader", READERS)
def test_all_programs_read_it_as_version_4(place: Path, reader: str) -> None:
    ok(place, f"cat inc.qb | {READERS[reader]}")


@pytest.mark.parametrize("reader", ["qb-unseal --verify", "qb-unseal --structure", "qb-header read -", "qb-key list"])
def test_a_header_of_version_104_without_a_base_is_damage(place: Path, reader: str) -> None:
    with tarfile.open(place / "inc.qb") as tar:
        header = tar.extractfile("backup-header")
        assert header is not None
        data = header.read()
    whole = (place / "inc.qb").read_bytes()
    bad = data.replace(b"base=", b"gone=")
    (place / "bad.qb").write_bytes(whole.replace(data, bad))
    status, message = {"--verify": (4, "differs from its"), "read": (4, "differs from its")}.get(
        reader.split()[1], (4, "base is missing")
    )
    fails(place, f"{reader} <bad.qb", status, message)


def test_version_3_is_still_told_from_it(place: Path) -> None:
    fails(place, "qb-header read --require-version 3 inc.qb", 5, "version 104, not 3")
    fails(place, "qb-header read --require-version 104 inc.qb", 2, "must be 3 or 4")


def test_by_hand_from_pieces(place: Path) -> None:
    """qb-header write --base, qb-seal, qb-manifest; and what a wrapped passphrase and a signature change: nothing."""
    ok(
        place,
        f"""rm -f r && id=$(qb-header id) && {{
        qb-header write --logn 10 --base full.receipt --backup-id $id &&
        qb-seal --logn 10 --backup-id $id --record r {NAME} <w.tar.gz && qb-manifest --logn 10 --backup-id $id r
        }} >pieces.qb && qb-unseal --verify <pieces.qb && qb-header read pieces.qb | grep -qx "base=$(sed -n \
        's/^backup-id //p' full.receipt)" """,
    )


def test_with_a_wrapped_passphrase_and_a_signature(place: Path) -> None:
    need("age", "age-keygen", "ssh-keygen")
    recipient = identities.age(place / "identity")
    key = signing.make_key(place / "key")
    (place / "signers").write_text(f"me {signing.public(key)}\n")
    seal = f"qb-seal --base full.receipt -r {recipient} --sign key --receipt s.receipt {NAME} <w.tar.gz >s.qb"
    done = bash(f"cd {place} && {seal}")
    assert (done.returncode, done.stderr) == (0, b"")
    for text in (
        "qb-unseal --verify -i identity --signers signers --expect s.receipt <s.qb",
        "qb-key check -q --signers signers <s.qb",
        "qb-key show -i identity --signers signers <s.qb",
        f"qb-key rewrap -i identity --signers signers -r {recipient} <s.qb >t.qb",
        "qb-unseal --verify -i identity --expect s.receipt <t.qb",
    ):
        done = bash(f"cd {place} && {text}")
        assert (done.returncode, done.stderr) == (0, b""), text


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("qb-seal --logn 10 --base full.receipt --backup-id x vm1/a.img", 2, "--base needs a complete archive"),
        ("qb-seal --logn 10 --base '' vm1/a.img", 2, "--base: the name is empty"),
        ("qb-seal --logn 10 --base missing vm1/a.img", 1, "cannot read missing"),
        ("qb-seal --logn 10 --base v.img vm1/a.img", 4, "v.img is no receipt"),
        ("qb-seal --logn 10 --base full.receipt --receipt full.receipt vm1/a.img", 5, "full.receipt"),
        (
            "qb-seal --logn 10 --base full.receipt --complete --backup-id $(sed -n 's/^backup-id //p' full.receipt) a",
            5,
            "",
        ),
        ("qb-header write --base full.receipt --no-manifest --backup-id x", 2, "--base and --no-manifest exclude"),
        ("qb-header write --base w.img --backup-id x", 4, "w.img is no receipt"),
        ("qb-header write --base full.receipt --backup-id $(sed -n 's/^backup-id //p' full.receipt)", 5, "of the base"),
    ],
)
def test_what_cannot_be_a_base(place: Path, command: str, status: int, message: str) -> None:
    fails(place, f"{command} <w.tar.gz >out.qb", status, message)
    assert (place / "out.qb").stat().st_size == 0


def test_backup_list_shows_the_base(tmp_path: Path) -> None:
    chains.with_passphrase(tmp_path)
    full = chains.seal(tmp_path / "full.qb", 1, {NAME: b"a" * 9000})
    chains.seal(tmp_path / "inc.qb", 2, {NAME: b"b" * 9000}, full)
    assert json.loads(ok(tmp_path, "qb-backup list --json inc.qb"))["base"] == full.backup_id
    assert json.loads(ok(tmp_path, "qb-backup list --json full.qb"))["base"] is None
    done = bash(f"cd {tmp_path} && qb-backup list -v inc.qb", QB_PASSPHRASE_FILE="passphrase")
    assert done.returncode == 0
    assert f"increments of the backup {full.backup_id}" in done.stderr.decode()


def test_an_increment_alone_is_not_restored(tmp_path: Path) -> None:
    """Nothing is made, and the line says what is missing."""
    folder = chain_of_two(tmp_path)
    (folder / "to").mkdir()
    message = f"the archive holds increments of the backup {chains.backup_id(1)}: restore it together with that one"
    for words in ("--to to", "--to new", "--map d1:private=file:x.img", "--to to --overwrite"):
        fails(folder, f"qb-backup restore {words} inc.qb", 5, message)
        fails(folder, f"qb-backup restore {words} <inc.qb", 5, message)
        fails(folder, f"cat bare.qb | qb-backup restore {words}", 5, message)
    make_host(folder / "host", [])
    for words in ("-y", "--verify-only", "-n"):
        fails(folder, f"qb-backup restore --host dir:host {words} inc.qb", 5, message)
    assert sorted(path.name for path in folder.rglob("*.img")) == []
    assert not (folder / "new").exists()


def test_an_increment_alone_is_verified_as_far_as_possible(tmp_path: Path) -> None:
    folder = chain_of_two(tmp_path)
    for name in ("inc.qb", "bare.qb"):
        done = bash(f"cd {folder} && qb-backup verify {name}", QB_PASSPHRASE_FILE="passphrase")
        lines = done.stderr.decode().splitlines()
        assert done.returncode == 0
        assert lines[0] == (
            f"qb-backup: warning: the archive holds increments of the backup {chains.backup_id(1)}: "
            "whether that one is complete and fits is not checked"
        )
        assert all("metadata" in line for line in lines[1:])
    data = (folder / "inc.qb").read_bytes()
    (folder / "cut.qb").write_bytes(data[:-5000])
    fails(folder, "qb-backup verify -q cut.qb 2>&1 >/dev/null | grep -v warning >&2; exit ${PIPESTATUS[0]}", 4, "")


def test_verify_compares_the_base_of_each_increment(tmp_path: Path) -> None:
    chains.with_passphrase(tmp_path)
    full = chains.seal(tmp_path / "full.qb", 1, {NAME: bytes(9000)})
    own = full.backup_id.encode()
    chains.seal(tmp_path / "inc.qb", 2, {NAME: b"b" * 9000}, full, change=lambda _, data: data.replace(own, b"other"))
    done = bash(f"cd {tmp_path} && qb-backup verify inc.qb", QB_PASSPHRASE_FILE="passphrase")
    assert done.returncode == 4
    assert f"{NAME} is an increment of the backup other, not of {full.backup_id}" in done.stderr.decode()


def test_an_increment_in_an_archive_of_version_4_is_damage(tmp_path: Path) -> None:
    chains.with_passphrase(tmp_path)
    full = chains.seal(tmp_path / "full.qb", 1, {NAME: bytes(9000)})
    chains.seal(tmp_path / "inc.qb", 2, {NAME: b"b" * 9000}, full, lie=None)
    fails(tmp_path, "qb-backup verify inc.qb", 4, f"{NAME} is an increment, but the archive has no base")


def test_the_list_of_an_increment(tmp_path: Path) -> None:
    full = chains.seal(tmp_path / "full.qb", 1, {NAME: b"a" * 9001})
    stream, _index = increments.saved(increments.stream(b"b" * 9001), "x", full.indexes[NAME])
    data = increments.archive(stream)
    done = run("qb-tarextract", "--list", NAME, data=data)
    digest = manifest.line_digest(full.records[1])
    assert done.stdout.decode() == f"9001\t{NAME}\tincrement {full.backup_id} {digest}\n"
    assert run("qb-tarextract", "--list", data=data).stdout.count(b"\n") > 2
    for bad in (data[:-1024], data[: len(data) // 2], data + b"x", data.replace(b".d/end", b".d/eno")):
        done = run("qb-tarextract", "--list", NAME, data=bad)
        assert (done.returncode, done.stdout) == (4, b"")


def chain_of_two(folder: Path) -> Path:
    """full.qb and inc.qb, and bare.qb, which has no metadata."""
    chains.with_passphrase(folder)
    full = chains.seal(folder / "full.qb", 1, {NAME: b"a" * 9000})
    chains.seal(folder / "inc.qb", 2, {NAME: b"b" * 9000}, full)
    chains.seal(folder / "bare.qb", 3, {NAME: b"c" * 9000}, full, metadata=False)
    return folder
