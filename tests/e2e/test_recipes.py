"""The recipes of qbtools(7), run as the page has them; ssh and rclone are stood in for by a few lines of shell."""

from __future__ import annotations

import os
import random
import re
import subprocess
from pathlib import Path

import pytest
from manual import examples
from support import bash

PAGE = examples("qbtools.7")
ROOT_IMAGE, DISK_IMAGE = (random.Random(seed).randbytes(200_000) + bytes(400_000) for seed in (1, 2))

# Another host is the directory `far`; the last word of ssh goes to its shell, as with the real one.
SSH = """#!/bin/bash
[ "$1" = store ] && shift && cd far && exec sh -c "$*"
"""
RCLONE = """#!/bin/bash
set -e
for path; do [ -z "$path" ] || paths+=("far/${path#remote:backup/}"); done
case $1 in
rcat) cat > "${paths[1]}" ;;
cat) cat "${paths[1]}" ;;
moveto) mv "${paths[1]}" "${paths[2]}" ;;
*) exit 9 ;;
esac
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working directory with root.img and disk.img, a passphrase, and the programs that stand in."""
    (tmp_path / "root.img").write_bytes(ROOT_IMAGE)
    (tmp_path / "disk.img").write_bytes(DISK_IMAGE)
    (tmp_path / "passphrase").write_text("recipes\n")
    (tmp_path / "passphrase").chmod(0o600)
    (tmp_path / "far").mkdir()
    program(tmp_path, "ssh", SSH)
    program(tmp_path, "rclone", RCLONE)
    return tmp_path


def program(place: Path, name: str, text: str) -> None:
    (place / "stand-in").mkdir(exist_ok=True)
    (place / "stand-in" / name).write_text(text)
    (place / "stand-in" / name).chmod(0o755)


def cook(place: Path, *recipes: str) -> subprocess.CompletedProcess[bytes]:
    """Runs recipes one after the other, as long as each ends well; with cheap keys, and the passphrase of place."""
    text = "".join(f"{PAGE[name]}status=$?; test $status = 0 || exit $status\n" for name in recipes)
    text = re.sub(r"\b(qb-seal|qb-manifest|qb-header write|qb-backup create)(?= )", r"\1 --logn 10", text)
    (place / "recipe").write_text(text.replace("/root/qb-passphrase", f"{place}/passphrase"))
    return bash(
        f"cd {place} && PATH={place}/stand-in:$PATH exec bash recipe", QB_PASSPHRASE_FILE=str(place / "passphrase")
    )


def succeed(place: Path, *recipes: str, stderr: bytes | None = b"") -> bytes:
    """Runs recipes twice in a row, as everybody does who uses them for more than a try."""
    for _turn in range(2):
        done = cook(place, *recipes)
        assert done.returncode == 0, done.stderr
        assert stderr is None or done.stderr == stderr
    return done.stdout


def restored(place: Path, archive: str, name: str) -> bytes:
    """The volume in an archive."""
    (place / "restored.raw").unlink(missing_ok=True)
    done = bash(
        f"cd {place} && qb-unseal --passphrase-file passphrase {name} < {archive} | gzip -dc |"
        " qb-tarextract --raw > restored.raw"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return (place / "restored.raw").read_bytes()


def test_one_volume(place: Path) -> None:
    output = succeed(place, "one-save", "one-restore", "one-look").decode().splitlines()
    assert (place / "restored.img").read_bytes() == DISK_IMAGE
    assert output[0].startswith("vm1/private.img\t1\t")
    digest = subprocess.run(["sha256sum"], input=DISK_IMAGE, capture_output=True, check=True).stdout
    assert output[-1] == digest.decode().strip()


def test_many_volumes(place: Path) -> None:
    succeed(place, "many-save", "many-restore")
    assert (place / "restored/vm1/root.img").read_bytes() == ROOT_IMAGE
    assert (place / "restored/vm1/private.img").read_bytes() == DISK_IMAGE


def test_pieces(place: Path) -> None:
    succeed(place, "pieces")
    assert restored(place, "vm1.qb", "vm1/root.img") == ROOT_IMAGE
    assert restored(place, "vm1.qb", "vm1/private.img") == DISK_IMAGE


def test_metadata(place: Path) -> None:
    succeed(place, "meta-save")
    assert b"<qubes>" in restored(place, "vm1.qb", "qubes.xml")
    assert restored(place, "vm1.qb", "vm1/private.img") == DISK_IMAGE
    listed = bash(f"cd {place} && qb-meta list qubes.xml").stdout.decode().splitlines()
    assert [line.split("\t")[3] for line in listed] == ["vm1/root.img", "vm1/private.img"]


def test_what_qb_backup_does_by_hand(place: Path) -> None:
    succeed(place, "meta-save", "meta-restore")
    assert (place / "restored/work/root.img").read_bytes() == ROOT_IMAGE
    assert (place / "restored/work/private.img").read_bytes() == DISK_IMAGE
    done = bash(f"cd {place} && qb-backup verify --passphrase-file passphrase vm1.qb")
    assert (done.returncode, done.stderr) == (0, b"")


def test_routes_whose_writer_has_failed_open_nothing(place: Path) -> None:
    succeed(place, "meta-save")
    program(place, "qb-meta", "#!/bin/bash\n/usr/bin/head -c 20\nkill -KILL $$\n")
    done = cook(place, "meta-restore")
    assert done.returncode == 1 and b"qubes.xml: the command stage 3 of 3" in done.stderr
    assert not (place / "restored").exists()


@pytest.mark.parametrize("recipe", ["one-save", "many-save", "pieces", "meta-save"])
def test_nothing_looks_complete_after_a_stage_has_failed(place: Path, recipe: str) -> None:
    """A compressor that fails after it has printed everything is what a plain shell would not notice."""
    for name in ("gzip", "pigz", "igzip"):
        program(place, name, '#!/bin/bash\n/bin/gzip "$@"\nexit 1\n')
    done = cook(place, recipe)
    assert done.returncode != 0
    assert not list(place.glob("*.qb"))


@pytest.mark.parametrize("recipe", ["one-restore", "many-restore"])
def test_no_volume_after_a_damaged_archive(place: Path, recipe: str) -> None:
    archive = {"one-restore": "disk.qb", "many-restore": "vm1.qb"}[recipe]
    succeed(place, {"one-restore": "one-save", "many-restore": "many-save"}[recipe])
    os.truncate(place / archive, (place / archive).stat().st_size // 2)
    assert cook(place, recipe).returncode != 0
    assert not (place / "restored.img").exists()
    assert not (place / "restored/vm1/private.img").exists()


@pytest.mark.parametrize("save", ["ssh-save", "ssh-plain"])
def test_over_ssh(place: Path, save: str) -> None:
    succeed(place, save, stderr=None)
    assert [path.name for path in (place / "far").iterdir()] == ["vm1.qb"]
    succeed(place, "ssh-restore", stderr=None)
    assert (place / "restored/vm1/root.img").read_bytes() == ROOT_IMAGE
    assert (place / "restored/vm1/private.img").read_bytes() == DISK_IMAGE


def test_over_ssh_an_older_archive_is_noticed(place: Path) -> None:
    succeed(place, "ssh-save", stderr=None)
    (place / "far/vm1.qb").rename(place / "older")
    succeed(place, "ssh-save", stderr=None)
    (place / "older").rename(place / "far/vm1.qb")
    done = cook(place, "ssh-restore")
    assert done.returncode == 5, done.stderr
    assert not (place / "restored/vm1").exists()


@pytest.mark.parametrize(
    ("save", "left"), [("ssh-save", []), ("ssh-plain", ["vm1.partial"]), ("rclone-save", ["vm1.partial"])]
)
def test_a_backup_that_dies_is_not_renamed_on_the_other_host(place: Path, save: str, left: list[str]) -> None:
    program(place, "qb-backup", "#!/bin/bash\n/bin/cat head\nkill -KILL $$\n")
    succeed(place, "one-save")
    (place / "head").write_bytes((place / "disk.qb").read_bytes()[:4096])
    assert cook(place, save).returncode != 0
    assert [path.name for path in (place / "far").iterdir()] == left


@pytest.mark.parametrize("save", ["ssh-save", "ssh-plain", "rclone-save"])
def test_the_id_is_that_of_the_last_archive_that_arrived(place: Path, save: str) -> None:
    succeed(place, save, stderr=None)
    before = (place / "vm1.id").read_bytes()
    for name in ("ssh", "rclone"):
        program(place, name, "#!/bin/bash\ncat >/dev/null\nexit 1\n")
    assert cook(place, save).returncode != 0
    assert (place / "vm1.id").read_bytes() == before


def test_object_storage(place: Path) -> None:
    succeed(place, "rclone-save", "rclone-verify", stderr=None)
    assert [path.name for path in (place / "far").iterdir()] == ["vm1.qb"]


def test_an_unchanged_volume_is_the_same_stream_for_a_deduplicating_store(place: Path) -> None:
    save = PAGE["restic-save"].partition("-- \\\n")[2]
    assert save == PAGE["borg-save"].partition("-- \\\n")[2]
    load = PAGE["restic-restore"].partition(" | ")[2]
    for other in ("borg-restore", "restic-older-restore"):
        assert load == PAGE[other].partition(" | ")[2]
    done = bash(f"cd {place} && {save.strip()} > a; {save.strip()} > b; cmp a b && rm root.img && cat a | {load}")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (place / "root.img").read_bytes() == ROOT_IMAGE
