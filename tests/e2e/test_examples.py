"""The EXAMPLES of the manual pages, each run as printed, and again if the first run has changed a file.

Other places of a machine (/srv, volume groups, another host) are replaced by files in the directory of a test.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import seriesdir
from hostdirs import Machine, make_host, noise
from manual import cheap, section, steps
from support import ROOT, bash, cheap_programs, need
from venvs import made_once
from version3 import PASSPHRASE, Maker, joined

PAGES = sorted(path.name for path in (ROOT / "man").glob("*.1") if ".Sh EXAMPLES" in path.read_text())
EXAMPLES = {page: section(page, "EXAMPLES") for page in PAGES}

ELSEWHERE = {
    ("qb-backup.1", 4): "tests/e2e/test_recipients.py has the keys for it",
    ("qb-backup.1", 6): "tests/e2e/test_merge.py has the archives for it",
    ("qb-host-libvirt.1", 0): "tests/e2e/test_libvirt.py asks a libvirtd of its own",
    ("qb-host-libvirt.1", 1): "tests/e2e/test_libvirt.py saves machines",
    ("qb-host-libvirt.1", 2): "tests/e2e/test_libvirt_restore.py restores machines",
    ("qb-snapshot.1", 0): "tests/e2e/test_backup_targets.py runs it on a file system that has snapshots",
    ("qb-store.1", 3): "a line of a file; tests/e2e/test_store.py has it in its place",
}
ONCE = {
    ("qb-tree.1", 0): "restored/user already exists",
    ("qb-volread.1", 1): "clone.img already exists",
    ("qb-volread.1", 2): "clone2.img already exists",
    ("qb-volwrite.1", 2): "clone.img already exists",
}
"""What a second run is refused for: these examples make something new, and their pages say so."""

CHAIN = """\
make() {
    id=$(qb-header id) && qb-volread disk.img |
        qb-delta ${2:+--base $2.index} --index $1.index --id $id --name vm1/private.img > $1.increment && {
            qb-header write --logn 10 --backup-id $id && qb-tarwrite vm1/private.img < $1.increment | gzip |
                qb-seal --logn 10 --backup-id $id --record $1.records vm1/private.img &&
                qb-manifest --logn 10 --backup-id $id $1.records
        } > $1.qb && qb-delta --confirm $1.index $1.records && printf changed | dd of=disk.img conv=notrunc status=none
}
make monday && make tuesday monday && make wednesday tuesday
"""

SSH = '#!/bin/bash\nshift && cd PLACE && exec sh -c "$*"\n'
GIB_20 = 600_000
"""The size of what the page takes for 20 GiB."""


@pytest.fixture(scope="module", autouse=True)
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with cheap_programs(tmp_path_factory.mktemp("cheap")):
        yield


@pytest.fixture(scope="module")
def pantry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with everything that the examples need."""
    return made_once(tmp_path_factory, "pantry", stock)


def stock(place: Path) -> None:
    for name in ("far", "docs", "home/user", "srv/pool", "dev/vg", "programs"):
        (place / name).mkdir(parents=True)
    (place / "passphrase").write_text(PASSPHRASE + "\n")
    (place / "passphrase").chmod(0o600)
    image = random.Random(1).randbytes(200_000) + bytes(GIB_20 - 200_000)
    volumes = ("dev/vg/root", "dev/vg/private", "dev/vg/vm1", "dev/sdb", "dev/sdb1", "dev/sdc1", "srv/private.img")
    for name in ("disk.img", "vm1.img", "work.img", "home.img", *volumes):
        (place / name).write_bytes(image)
    for name in ("notes", "plans", "docs/text", "home/user/letter"):
        (place / name).write_text(f"{name}\n")
    make_host(place / "srv/vms", [Machine(name, data={"root": noise(name)}) for name in ("work", "work-mail")])
    shutil.copytree(place / "srv/vms", place / "srv/pool", dirs_exist_ok=True)
    maker, template = Maker(place / "template"), place / "template"
    template.mkdir()
    for name in ("root.img", "private.img"):
        (template / name).write_bytes(image)
    for name, folder in ("old.qb", "vm-templates/f23"), ("qubes-2016", "vm7"):
        (place / "qubes.xml").write_text("<qubes/>")
        files = {"qubes.xml": place / "qubes.xml", f"{folder}/.": template}
        (place / name).write_bytes(joined(place, maker.members(files)))
    made = bash(
        f"cd {place} && qb-backup create -q --logn 10 -o backup.qb work:root=disk.img work-mail:root=home.img &&"
        " qb-backup create -q --logn 10 --id-file vm1.id -o vm1.qb"
        " vm1:root=disk.img vm1:private=home.img work:root=vm1.img &&"
        " mkdir srv/backups && cp vm1.qb srv/backups && gzip -k disk.img &&"
        " qb-volread disk.img | qb-tarwrite vm1/root.img > root.tar &&"
        " qb-volread disk.img | qb-volwrite qcow2:disk.qcow2",
        QB_PASSPHRASE_FILE=str(place / "passphrase"),
    )
    assert (made.returncode, made.stderr) == (0, b"")
    keyed = bash(
        f"cd {place} && age-keygen -o old 2>/dev/null && age-keygen -y old >team && cp old identity &&"
        " ssh-keygen -q -t ed25519 -N '' -f key && echo \"* $(cat key.pub)\" >signers &&"
        " qb-backup create -q -R team --sign key -o keyed.qb vm1:root=disk.img",
    )
    assert (keyed.returncode, keyed.stderr) == (0, b"")


@pytest.fixture
def place(tmp_path: Path, pantry: Path) -> Path:
    """A copy of it, with the programs that stand in for those of another host, an editor and object storage."""
    subprocess.run(["cp", "-a", f"{pantry}/.", tmp_path], check=True)
    for name, text in ("ssh", SSH.replace("PLACE", str(tmp_path))), ("vi", "#!/bin/sh\n"):
        (tmp_path / "programs" / name).write_text(text)
        (tmp_path / "programs" / name).chmod(0o755)
    return tmp_path


def adapted(text: str, place: Path) -> str:
    """An example for the files of a test: with cheap keys, and no questions."""
    text = re.sub(r"(?<![\w.])/(srv|dev/vg|dev/sd|home)", rf"{place}/\1", text)
    text = text.replace("/root/passphrase", f"{place}/passphrase").replace("20G", str(GIB_20))
    text = text.replace("lvm:vg/pool/vm1", "clone.img").replace("lvm:vg/pool/vm2", "clone2.img")
    text = text.replace("lvm:vg0/pool", "lvm:vg/pool")
    text = re.sub(r"(?<=[ =])vg/(?=\w)", f"{place}/dev/vg/", text)
    text = text.replace("--pool lvm:vg/pool", "--to pool").replace("lvm:vg/pool", f"dir:{place}/srv/pool")
    text = re.sub(r"qb-backup restore --host (?!.*--dry-run)", "qb-backup restore --yes --host ", text)
    text = text.replace("--wrap-passphrase --signers", "--wrap-passphrase --new-passphrase-file passphrase --signers")
    return cheap(text)


Snapshot = dict[Path, tuple[int, int, int, int]]


def snapshot(place: Path) -> Snapshot:
    """What tells whether files below a directory were made, removed or changed."""
    found = {}
    for path in place.rglob("*"):
        status = path.lstat()
        found[path] = (status.st_ino, status.st_mode, status.st_size, status.st_ctime_ns)
    return found


def make_series(place: Path) -> None:
    """A series whose archives are on both stores."""
    series = seriesdir.new(place / "work.series")
    for folder in (place / "backup", place / "far/backup"):
        folder.mkdir()
    for number in range(35):
        backup_id = f"20260101T0000{number:02}-0123456789abcdef"
        seriesdir.save(series, backup_id)
        seriesdir.confirm(series, backup_id)
        for folder in (place / "backup", place / "far/backup"):
            (folder / f"{backup_id}.qbk").touch()


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page(page: str, place: Path) -> None:
    need("age", "gzip", "jq", "openssl", "qemu-img", "rclone", "ssh-keygen", "tar", "zstd")
    settings = {
        "QB_PASSPHRASE_FILE": f"{place}/passphrase",
        "RCLONE_CONFIG": f"{place}/rclone.conf",
        "RCLONE_CONFIG_REMOTE_TYPE": "alias",
        "RCLONE_CONFIG_REMOTE_REMOTE": f"{place}/far",
    }
    (place / "rclone.conf").touch()
    if page == "qb-merge.1":
        done = bash(f"cd {place}\n{CHAIN}", **settings)
        assert (done.returncode, done.stderr) == (0, b"")
    if page == "qb-series.1":
        make_series(place)
    if page == "qb-key.1":
        (place / "keyed.qb").rename(place / "vm1.qb")
    for number, example in enumerate(EXAMPLES[page]):
        if (page, number) in ELSEWHERE:
            continue
        if example.startswith("$ "):
            example = "set -e\n" + "".join(command for command, _output in steps(example))
        (place / "example").write_text(adapted(example, place))
        before: Snapshot = {}
        for turn in range(2):
            if turn and before == snapshot(place):
                continue  # it would be the same run
            before = snapshot(place)
            done = bash(f"cd {place} && PATH={place}/programs:$PATH exec bash example", **settings)
            refused = ONCE.get((page, number)) if turn else None
            if refused:
                assert done.returncode == 5 and refused.encode() in done.stderr, (example, done)
            else:
                assert done.returncode == 0 and b"error: " not in done.stderr, (example, done)


def test_a_host_that_can_only_be_saved_from(place: Path) -> None:
    """The program of qb-host(7), with files for its logical volumes."""
    (program,) = section("qb-host.7", "EXAMPLES")
    programs = {
        "qb-host-mine": program.replace("lvm:%s/%s", f"{place}/dev/%s/%s").replace('"/dev/', f'"{place}/dev/'),
        "lvs": "#!/bin/sh\nprintf '  %s\\n' 'private 600000' 'root 600000'\n",
        "blockdev": '#!/bin/sh\nexec stat --format=%s "$2"\n',
    }
    for name, text in programs.items():
        (place / "programs" / name).write_text(text)
        (place / "programs" / name).chmod(0o755)
    commands = "qb-backup create -q --logn 10 --state=current --host mine:vg > mine.qb && qb-backup list mine.qb"
    for _turn in range(2):
        done = bash(f"cd {place} && PATH={place}/programs:$PATH; {commands}", QB_PASSPHRASE_FILE="passphrase")
        assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert [line.split("\t")[:3] for line in lines] == [[name, "StandaloneVM", "root"] for name in ("private", "root")]


def test_every_exception_is_one() -> None:
    for page, number in [*ELSEWHERE, *ONCE]:
        assert number < len(EXAMPLES[page])
