"""The recipes of qbtools(7) are run as printed, twice in a row; a few lines of shell replace ssh."""

from __future__ import annotations

import configparser
import os
import random
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hostdirs import Machine, images, make_host, noise
from libvirtd import Libvirt, disk
from manual import cheap, examples
from sshhost import SshHost
from support import BIN, bash, copy_of, environment, need

PAGE = examples("qbtools.7")
ROOT_IMAGE, DISK_IMAGE = (random.Random(seed).randbytes(200_000) + bytes(400_000) for seed in (1, 2))

# Another host is the directory `far`; the last word of ssh goes to its shell, as with the real one.
SSH = """#!/bin/bash
[ "${1#root@}" = store ] && shift && cd far && exec sh -c "$*"
"""
# The option that restic has from 0.17 on, for an older one; whether the command failed is not looked at here.
RESTIC = """#!/bin/bash
[ "$1 $4 $5" = "backup --stdin-from-command --" ] || exec /usr/bin/restic "$@"
"${@:6}" | /usr/bin/restic backup --stdin "$2" "$3"
"""

FULL_NIGHT = """qb-backup create -q --logn 10 --series work.series --full -R recipients.txt \\
--store 'ssh store qb-store "$QB_BACKUP_ID.qb"' work:root=../dev/vg/root work:private=../dev/vg/private"""

BROKEN = "#!/bin/bash\nhead -c 9000 root.img\nexit 1\n"
"""A qb-volread that fails in the middle."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working directory with root.img and disk.img, a passphrase, and the programs that stand in."""
    (tmp_path / "root.img").write_bytes(ROOT_IMAGE)
    (tmp_path / "disk.img").write_bytes(DISK_IMAGE)
    (tmp_path / "passphrase").write_text("recipes\n")
    (tmp_path / "passphrase").chmod(0o600)
    for name in ("far", "root", "srv", "usr/local/bin"):
        (tmp_path / name).mkdir(parents=True)
    program(tmp_path, "ssh", SSH)
    program(tmp_path, "vi", "#!/bin/sh\n")
    (tmp_path / "rclone.conf").touch()
    return tmp_path


def program(place: Path, name: str, text: str) -> None:
    (place / "stand-in").mkdir(exist_ok=True)
    (place / "stand-in" / name).write_text(text)
    (place / "stand-in" / name).chmod(0o755)


def adapted(text: str, place: Path) -> str:
    """A recipe for the files of a test: with cheap keys, and with place for the root directory."""
    text = text.replace("/root/qb-passphrase", f"{place}/passphrase")
    return cheap(re.sub(r"(?<![\w.])/(?=(etc|root|srv|opt|usr/local|dev/vg)\b)", f"{place}/", text))


def cook(place: Path, *recipes: str) -> subprocess.CompletedProcess[bytes]:
    """Runs recipes one after the other, as long as each ends well; with cheap keys, and the passphrase of place."""
    text = "".join(f"{PAGE[name]}status=$?; test $status = 0 || exit $status\n" for name in recipes)
    (place / "recipe").write_text(adapted(text, place))
    settings = {
        "QB_PASSPHRASE_FILE": f"{place}/passphrase",
        "BORG_BASE_DIR": f"{place}/borg",
        "XDG_CACHE_HOME": f"{place}/cache",
        "RCLONE_CONFIG": f"{place}/rclone.conf",
        "RCLONE_CONFIG_REMOTE_TYPE": "alias",
        "RCLONE_CONFIG_REMOTE_REMOTE": f"{place}/far",
        "RCLONE_SIZE_ONLY": "true",  # as with a store that keeps no times
        "TZ": f"UTC{time.gmtime().tm_hour - 12:+}",  # it is noon: no test goes on until the next day
    }
    return bash(f"cd {place} && PATH={place}/stand-in:$PATH exec bash recipe", **settings)


def far(place: Path) -> list[str]:
    """The files on the other host."""
    return [path.name for path in (place / "far").rglob("*") if path.is_file()]


def succeed(place: Path, *recipes: str, stderr: bytes | None = b"") -> bytes:
    """Runs recipes twice in a row, like every regular user."""
    for _turn in range(2):
        done = cook(place, *recipes)
        assert done.returncode == 0, done.stderr
        assert stderr is None or done.stderr == stderr
    return done.stdout


def once(place: Path, *recipes: str) -> None:
    """Runs recipes that are run twice elsewhere."""
    done = cook(place, *recipes)
    assert done.returncode == 0, done.stderr


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


def test_what_has_changed_in_a_volume(place: Path) -> None:
    for seed in (1, 2):
        once(place, "increment-full")
        (place / "disk.img").write_bytes(DISK_IMAGE[:100_000] + random.Random(seed).randbytes(50_000))
        once(place, "increment-next", "increment-restore")
        assert (place / "new.img").read_bytes() == (place / "disk.img").read_bytes()
        restore = "rm -rf to && qb-backup restore --to to full.qb increment.qb && cmp disk.img to/vm1/private.img"
        done = bash(f"cd {place} && {restore}", QB_PASSPHRASE_FILE=str(place / "passphrase"))
        assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()


def test_many_volumes(place: Path) -> None:
    succeed(place, "many-save", "many-restore")
    assert (place / "restored/vm1/root.img").read_bytes() == ROOT_IMAGE
    assert (place / "restored/vm1/private.img").read_bytes() == DISK_IMAGE


def test_pieces(place: Path) -> None:
    succeed(place, "pieces")
    assert restored(place, "vm1.qb", "vm1/root.img") == ROOT_IMAGE
    assert restored(place, "vm1.qb", "vm1/private.img") == DISK_IMAGE


def test_archives_that_the_machine_cannot_open(place: Path) -> None:
    shown = succeed(
        place, "keys-make", "keys-save", "keys-restore", "keys-check", "keys-rewrap", "keys-show", stderr=None
    )
    assert (place / "restored/vm1/root.img").read_bytes() == ROOT_IMAGE
    assert (place / "restored/vm1/private.img").read_bytes() == DISK_IMAGE
    assert re.fullmatch(rb"[a-z2-7]{52}\n", shown)
    other = bash(f"cd {place} && qb-backup verify -i other.key --signers signers --expect vm1.receipt other.qb")
    assert (other.returncode, other.stderr) == (0, b"")


def test_pieces_with_a_made_passphrase(place: Path) -> None:
    succeed(place, "keys-make", "keys-pieces")
    opened = bash(
        f"cd {place} && qb-unseal -i backup.key --any-writer vm1/private.img < vm1.qb | gzip -dc | qb-tarextract --raw"
    )
    assert (opened.returncode, opened.stderr, opened.stdout) == (0, b"", DISK_IMAGE)


def test_metadata_and_what_qb_backup_does_by_hand(place: Path) -> None:
    succeed(place, "meta-save", "meta-restore")
    assert b"<qubes>" in restored(place, "vm1.qb", "qubes.xml")
    assert restored(place, "vm1.qb", "vm1/private.img") == DISK_IMAGE
    listed = bash(f"cd {place} && qb-meta list qubes.xml").stdout.decode().splitlines()
    assert [line.split("\t")[3] for line in listed] == ["vm1/root.img", "vm1/private.img"]

    assert (place / "restored/work/root.img").read_bytes() == ROOT_IMAGE
    assert (place / "restored/work/private.img").read_bytes() == DISK_IMAGE
    done = bash(f"cd {place} && qb-backup verify --passphrase-file passphrase vm1.qb")
    assert (done.returncode, done.stderr) == (0, b"")


def test_routes_whose_writer_has_failed_open_nothing(place: Path) -> None:
    once(place, "meta-save")
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
    once(place, {"one-restore": "one-save", "many-restore": "many-save"}[recipe])
    os.truncate(place / archive, (place / archive).stat().st_size // 2)
    assert cook(place, recipe).returncode != 0
    assert not (place / "restored.img").exists()
    assert not (place / "restored/vm1/private.img").exists()


@pytest.mark.parametrize("save", ["ssh-save", "ssh-plain"])
def test_over_ssh(place: Path, save: str) -> None:
    succeed(place, save, "ssh-restore", stderr=None)
    assert far(place) == ["vm1.qb"]
    assert (place / "restored/vm1/root.img").read_bytes() == ROOT_IMAGE
    assert (place / "restored/vm1/private.img").read_bytes() == DISK_IMAGE


def test_over_ssh_a_receipt_shows_what_was_changed(place: Path) -> None:
    succeed(place, "ssh-receipt", stderr=None)
    assert succeed(place, "ssh-compare") == b""
    with (place / "far/vm1.qb").open("r+b") as archive:
        archive.seek(200_000)
        byte = archive.read(1)
        archive.seek(200_000)
        archive.write(bytes([byte[0] ^ 1]))
    done = cook(place, "ssh-compare")
    assert (done.returncode, b"the receipt" in done.stderr) == (4, True)


def test_over_ssh_an_older_archive_is_noticed(place: Path) -> None:
    once(place, "ssh-save")
    (place / "far/vm1.qb").rename(place / "older")
    once(place, "ssh-save")
    (place / "older").rename(place / "far/vm1.qb")
    done = cook(place, "ssh-restore")
    assert done.returncode == 5, done.stderr
    assert not (place / "restored/vm1").exists()


@pytest.mark.parametrize(
    ("save", "left"), [("ssh-save", []), ("ssh-plain", ["vm1.partial"]), ("rclone-save", ["vm1.partial"])]
)
def test_a_backup_that_dies_is_not_renamed_on_the_other_host(place: Path, save: str, left: list[str]) -> None:
    program(place, "qb-backup", "#!/bin/bash\n/bin/cat head\nkill -KILL $$\n")
    once(place, "one-save")
    (place / "head").write_bytes((place / "disk.qb").read_bytes()[:4096])
    assert cook(place, save).returncode != 0
    assert far(place) == left


@pytest.mark.parametrize("save", ["ssh-save", "ssh-plain", "rclone-save"])
def test_the_id_is_that_of_the_last_archive_that_arrived(place: Path, save: str) -> None:
    once(place, save)
    before = (place / "vm1.id").read_bytes()
    for name in ("ssh", "rclone"):
        program(place, name, "#!/bin/bash\ncat >/dev/null\nexit 1\n")
    assert cook(place, save).returncode != 0
    assert (place / "vm1.id").read_bytes() == before


def test_a_run_that_failed_does_not_hinder_the_next(place: Path) -> None:
    (place / "disk.img").rename(place / "away")
    assert cook(place, "ssh-save").returncode != 0
    (place / "away").rename(place / "disk.img")
    once(place, "ssh-save")


def listed(place: Path) -> list[list[str]]:
    """The fields of each archive of the series."""
    done = bash(f"qb-series list {place}/root/work.series")
    assert (done.returncode, done.stderr) == (0, b"")
    return [line.split("\t") for line in done.stdout.decode().splitlines()]


def test_every_night_what_has_changed(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Through a real ssh. An archive that is not stored is no base, and what is not kept is removed there."""
    need("age-keygen")
    (place / "dev/vg").mkdir(parents=True)
    for name, data in (("root", ROOT_IMAGE), ("private", DISK_IMAGE)):
        (place / "dev/vg" / name).write_bytes(data)
    keys = bash(f"cd {place}/root && age-keygen -o ../key.txt 2>/dev/null && age-keygen -y ../key.txt >recipients.txt")
    assert (keys.returncode, keys.stderr) == (0, b"")
    with SshHost(tmp_path_factory.mktemp("store")) as store:
        (place / "stand-in/ssh").write_bytes((store.programs / "ssh").read_bytes())
        for night in range(3):
            with (place / "dev/vg/root").open("r+b") as file:
                file.seek(70_000 * night)
                file.write(b"night")
            done = cook(place, "series-night")
            assert (done.returncode, done.stderr) == (0, b"")
            if not night:
                working = (place / "stand-in/ssh").read_bytes()
                program(place, "ssh", "#!/bin/bash\nhead -c 1000 >/dev/null\nexit 255\n")
                assert cook(place, "series-night").returncode == 1
                program(place, "ssh", working.decode())
        ids = [row[0] for row in listed(place)]
        assert [row[1:3] for row in listed(place)] == [["confirmed", base] for base in ("-", *ids[:-1])]
        assert sorted(path.name for path in store.home.iterdir()) == [f"{one}.qb" for one in sorted(ids)]
        parts = (
            f"<(qb-unseal -i key.txt --any-writer vm1/root.img <{store.home}/{one}.qb | gzip -dc | qb-tarextract)"
            for one in ids
        )
        merged = bash(f"cd {place} && qb-merge {' '.join(parts)} | qb-volwrite restored.img")
        assert merged.returncode == 0, merged
        assert (place / "restored.img").read_bytes() == (place / "dev/vg/root").read_bytes()
        for one, name in zip(ids, ("full", "monday", "tuesday"), strict=True):
            os.link(store.home / f"{one}.qb", store.home / f"{name}.qb")
        (place / "key.txt").rename(place / "backup.key")
        done = cook(place, "series-restore")
        assert (done.returncode, done.stderr) == (0, b"")
        assert (place / "restored/work/root.img").read_bytes() == (place / "dev/vg/root").read_bytes()
        for name in ("full", "monday", "tuesday"):
            (store.home / f"{name}.qb").unlink()
        full = bash(f"cd {place}/root && {FULL_NIGHT}", PATH=f"{place}/stand-in:{environment()['PATH']}")
        assert (full.returncode, full.stderr) == (0, b"")
        done = cook(place, "series-night")
        assert (done.returncode, done.stderr) == (0, b"")
        states = [row[1] for row in listed(place)]
        assert states == ["gone"] * 3 + ["confirmed"] * 2
        assert len(list(store.home.iterdir())) == 2


def test_the_other_host_gets_qb_store(place: Path) -> None:
    """Into a directory of its PATH, and with nothing that Debian's python3 lacks."""
    copy_of(place, "bin", "qbtools")
    succeed(place, "ssh-install")
    once(place, "one-save")
    done = bash(f"env -i PATH={place}/usr/local/bin:/usr/bin:/bin qb-store - < {place}/disk.qb | cmp - {place}/disk.qb")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (place / "usr/local/bin/qb-store").resolve() == place / "opt/qbtools/bin/qb-store"


def test_object_storage(place: Path) -> None:
    """An unchanged volume gives an archive of the same size, and still the second one replaces the first."""
    need("rclone")
    succeed(place, "rclone-save", "rclone-verify", stderr=None)
    assert far(place) == ["vm1.qb"]


def test_restic(place: Path) -> None:
    """It also contains other files; and a broken pipe leaves nothing that would be restored."""
    need("restic")
    (place / "root/restic-password").write_text("restic\n")
    if b"--stdin-from-command" not in bash("restic backup --help").stdout:
        program(place, "restic", RESTIC)
    once(place, "restic-prepare", "restic-save")  # each call of restic takes half a second for its key
    once(place, "restic-prepare", "restic-older-save")
    other = f"export RESTIC_REPOSITORY={place}/srv/restic RESTIC_PASSWORD=restic; echo | restic backup -q --stdin"
    assert bash(other, XDG_CACHE_HOME=f"{place}/cache").returncode == 0
    back(place, "restic-prepare", "restic-restore")
    program(place, "qb-volread", BROKEN)
    assert cook(place, "restic-prepare", "restic-older-save").returncode != 0
    back(place, "restic-prepare", "restic-older-restore")


def test_borg(place: Path) -> None:
    need("borg")
    (place / "root/borg-passphrase").write_text("borg\n")
    succeed(place, "borg-prepare", "borg-save", stderr=None)
    program(place, "qb-volread", BROKEN)
    assert cook(place, "borg-prepare", "borg-save").returncode != 0
    back(place, "borg-prepare", "borg-restore")


def back(place: Path, *recipes: str) -> None:
    """Runs recipes that restore root.img."""
    (place / "root.img").write_bytes(b"something else")
    done = cook(place, *recipes)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (place / "root.img").read_bytes() == ROOT_IMAGE


def test_an_unchanged_volume_is_the_same_stream_for_a_deduplicating_store(place: Path) -> None:
    save = PAGE["restic-save"].partition("-- \\\n")[2]
    assert save == PAGE["borg-save"].partition("-- \\\n")[2]
    done = bash(f"cd {place} && {save.strip()} > a; {save.strip()} > b; cmp a b")
    assert (done.returncode, done.stderr) == (0, b"")


def test_whole_machines(place: Path) -> None:
    """Saved from a directory instead of a thin pool."""
    machine = Machine("work", data={"root": noise("work")})
    make_host(place / "pool", [machine])
    (place / "srv/vms").mkdir()
    PAGE["machines-save"] = PAGE["machines-save"].replace("lvm:vg/pool", "dir:pool")
    PAGE["machines-restore"] = PAGE["machines-restore"].replace("--plan", "--yes --plan")
    succeed(place, "machines-save", "machines-restore", stderr=None)
    assert {path.split("/")[0] for path in images(place / "srv/vms")} == {"work", "work-1"}


def test_machines_of_libvirt(place: Path, libvirt: Libvirt) -> None:
    """With another libvirt and another directory for the volumes."""
    shutil.copy(place / "root.img", libvirt.place / "images/web")
    uuid = libvirt.define("web", disk(libvirt.place / "images/web"))
    (place / "srv").mkdir(exist_ok=True)
    host = f"'libvirt:{libvirt.uri}'"
    with tempfile.TemporaryDirectory(prefix="qb-") as state:
        for name in "libvirt-save", "libvirt-restore":
            text = PAGE[name].replace("libvirt: ", f"{host} ").replace("--include", "--yes --include")
            text = text.replace("virsh", f"virsh -q -c '{libvirt.uri}'")
            PAGE[name] = f"export QB_LIBVIRT_DIR={state} QB_LIBVIRT_POOL=/srv\n{text}"
        done = cook(place, "libvirt-save", "libvirt-restore")
    assert done.returncode == 0, done.stderr
    assert (place / "srv/web-test-vda.img").read_bytes() == ROOT_IMAGE
    (new,) = libvirt.uuids() - {uuid}
    assert libvirt.virsh("domstate", new).strip() == "running"


def test_proxmox(place: Path) -> None:
    """Stand-ins for qb-snapshot, which has no thin pool here, and for the program of Proxmox VE."""
    program(place, "qb-snapshot", "#!/bin/bash\n[ $1 = release ] || echo file:root.img\n")
    program(place, "qm", '#!/bin/bash\necho "$@" >> done\necho memory: 2048\n')
    PAGE["proxmox-restore"] = PAGE["proxmox-restore"].replace("lvm:pve/data/", "")
    done = cook(place, "proxmox-save", "proxmox-restore")
    assert done.returncode == 0, done.stderr
    assert (place / "vm-101-disk-0").read_bytes() == ROOT_IMAGE
    assert (place / "vm100.conf").read_text() == "memory: 2048\n"
    assert [line.split()[0] for line in (place / "done").read_text().splitlines()] == ["config", "create", "set"]


def machine(place: Path, script: str) -> None:
    """The script of a recipe, with the programs and the volume that it needs."""
    for path in (place / "usr/local/sbin/backup-vm1", place / "dev/vg/root"):
        path.parent.mkdir(parents=True)
    shutil.copy(place / "root.img", place / "dev/vg/root")
    (place / "usr/local/sbin/backup-vm1").write_text(adapted(PAGE[script], place))
    (place / "usr/local/sbin/backup-vm1").chmod(0o700)
    for name in BIN.iterdir():
        (place / "usr/local/bin" / name.name).symlink_to(name)
    python = place / "usr/local/bin/python3"
    python.write_text(f'#!/bin/sh\nexec {shutil.which("python3")} "$@"\n')
    python.chmod(0o755)


def test_unattended_with_recipients(place: Path) -> None:
    """No passphrase is anywhere."""
    machine(place, "unattended-recipients")
    (place / "passphrase").unlink()
    (place / "etc/qbtools").mkdir(parents=True)
    made = bash(f"cd {place} && age-keygen -o id 2>/dev/null && age-keygen -y id >etc/qbtools/recipients")
    assert made.returncode == 0
    (place / "backup-vm1.service").write_text(adapted(PAGE["unattended-recipients-service"], place))
    unit = configparser.ConfigParser()
    unit.read(place / "backup-vm1.service")
    done = bash(f"env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin {unit['Service']['ExecStart']}")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    [archive], [receipt] = (place / "srv/backup").iterdir(), (place / "root/receipts").iterdir()
    assert archive.name == f"{receipt.name}.qb"
    done = bash(f"qb-backup verify -i {place}/id --expect {receipt} {archive}")
    assert (done.returncode, done.stderr) == (0, b"")


def test_unattended(place: Path) -> None:
    """Runs the script like cron, then like systemd: with a short PATH, and with the passphrase in its usual place."""
    machine(place, "unattended-script")
    (place / "passphrase").unlink()
    done = bash(f"cd {place}\n" + adapted(PAGE["unattended-passphrase"], place), data=b"recipes\n")
    assert (done.returncode, (place / "passphrase").stat().st_mode & 0o777) == (0, 0o600)

    setting, line = adapted(PAGE["unattended-cron"], place).splitlines()
    *_when, user, command = line.split()
    assert (len(_when), user) == (5, "root")
    done = bash(f"env -i PATH=/usr/bin:/bin {setting} /bin/sh -c {command}")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")

    for kind in ("unattended-service", "unattended-timer"):
        (place / f"backup-vm1.{kind.partition('-')[2]}").write_text(adapted(PAGE[kind], place))
    if shutil.which("systemd-analyze"):
        done = bash(f"systemd-analyze verify --man=no {place}/backup-vm1.service {place}/backup-vm1.timer")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    unit = configparser.ConfigParser()
    unit.read(place / "backup-vm1.service")
    service = unit["Service"]
    (place / "passphrase").unlink()
    (place / "etc").mkdir()
    program(place, "systemd-ask-password", "#!/bin/bash\nprintf recipes\n")
    program(place, "systemd-creds", '#!/bin/bash\n[ "$1" = encrypt ] && cat > "${@: -1}"\n')
    (place / "recipe").write_text(adapted(PAGE["unattended-credential"], place))
    done = bash(f"cd {place} && export PATH={place}/stand-in:$PATH; bash recipe && bash recipe")
    assert (done.returncode, done.stderr) == (0, b"")
    (place / "credentials").mkdir()
    credential = place / "etc/credstore.encrypted" / service["LoadCredentialEncrypted"]
    shutil.copy(credential, place / "credentials")
    time.sleep(1 - time.time() % 1)  # the name of an archive is a second
    directory = f"CREDENTIALS_DIRECTORY={place}/credentials"
    done = bash(f"env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin {directory} {service['ExecStart']}")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    archives, ids = sorted((place / "srv/backup").iterdir()), sorted((place / "root/ids").iterdir())
    assert len(archives) == len(ids) == 2
    for archive, one in zip(archives, ids, strict=True):
        assert archive.name == f"{one.name}.qb" and archive.stat().st_mode & 0o777 == 0o600
        done = bash(f"{directory} qb-backup verify --expect-id $(cat {one}) {archive}")
        assert (done.returncode, done.stderr) == (0, b"")
