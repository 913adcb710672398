"""An output that cannot be written, and an input that cannot be opened: each program names it and the reason."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from devices import mounted
from hostdirs import Machine, make_host
from support import bash

ID = "20260101T000000-0123456789abcdef"
SEAL = "echo x | qb-seal --opaque --logn 10 --backup-id " + ID
CREATE = "qb-backup create -q --logn 10"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume, its stream and archive, a host, a plain file and a directory."""
    place = tmp_path_factory.mktemp("outputs")
    (place / "root.img").write_bytes(os.urandom(100_000))
    (place / "passphrase").write_text("outputs\n")
    (place / "passphrase").chmod(0o600)
    (place / "plain").write_text("")
    (place / "folder").mkdir()
    (place / "folder/inside").write_text("")
    (place / "tree").mkdir()
    make_host(place / "host", [Machine("vm", data={"root": b"x", "private": b"x"}, files={"note": b"text"})])
    made = said(
        place,
        f"qb-volread root.img >stream && qb-tree tree n >tree.tar && {CREATE} -o a.qb vm:root=root.img"
        f" && {CREATE} --host host -o host.qb vm && qb-volread root.img | qb-tarwrite vm/root.img >inner",
    )
    assert made == (0, [])
    return place


def said(place: Path, command: str) -> tuple[int, list[str]]:
    """The status and the messages of a command in place."""
    done = bash(f"cd {place} && {command}", QB_PASSPHRASE_FILE="passphrase")
    return done.returncode, done.stderr.decode().splitlines()


# {} is the output. Each of the commands would make it.
OUTPUTS = {
    "record": SEAL + " --record {} x",
    "report of qb-seal": SEAL + " --report {} x",
    "report of qb-unseal": "qb-unseal --to-command 'cat >/dev/null' --report {} <a.qb",
    "store": "qb-store {} <a.qb",
    "store in a directory": "qb-store --dir {} x <a.qb",
    "volwrite": "qb-volwrite --create file:{} <stream",
    "volumes": "qb-tarextract --volumes --create vm root=file:{} <inner",
    "tree": "qb-tree --extract {} n <tree.tar",
    "archive": CREATE + " -o {} root.img",
    "id": CREATE + " --id-file {} -o new.qb root.img",
    "each": CREATE + " --each --host host -o {}",
    "map": "qb-backup restore -q --map vm:root=file:{} a.qb",
    "to": "qb-backup restore -q --to {} a.qb",
    "files-to": "qb-backup restore -q --host host --yes --rename vm=new --files-to {} host.qb",
}
MAKE_PARENTS = ("tree", "to")
DIRECTORIES = ("store in a directory", "each", "to", "files-to")
REASONS = ("No such file or directory", "Not a directory", "Is a directory", "already exists", "is a directory")


@pytest.mark.parametrize("output", [name for name in OUTPUTS if name not in MAKE_PARENTS])
def test_a_directory_that_is_missing(output: str, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    status, lines = said(folder, OUTPUTS[output].format("none/out"))
    assert (status, len(lines)) == (1, 1)
    verb = "create" if "file:" in OUTPUTS[output] else "write"
    assert re.fullmatch(rf"qb-[a-z]+: error: cannot {verb} .*none/out.*: No such file or directory", lines[0]), lines
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_directory_that_is_a_file(output: str, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    status, lines = said(folder, OUTPUTS[output].format("plain/out"))
    assert (status, len(lines)) == (1, 1)
    assert re.fullmatch(r"qb-[a-z]+: error: cannot (write|create) .*plain.*[nN]ot a directory", lines[0]), lines
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("output", [name for name in OUTPUTS if name not in DIRECTORIES])
def test_a_file_that_is_a_directory(output: str, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    status, lines = said(folder, OUTPUTS[output].format("folder"))
    assert (status, lines[1:]) in ((1, []), (2, []), (5, []), (5, ["hint: --overwrite replaces it"]))
    assert re.fullmatch(
        r"qb-[a-z]+: error: .*folder.*(: Is a directory| already exists| is a directory.*| is not a regular file)",
        lines[0],
    )
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("output", [name for name in OUTPUTS if "report" in name or name == "record"])
def test_an_output_that_is_appended_to_follows_no_link(output: str, folder: Path, tmp_path: Path) -> None:
    """Somebody else may have made it. Links of /dev/fd are those of the caller."""
    for target in ("mine", "none"):
        (tmp_path / target).symlink_to(folder / target)
    (folder / "mine").write_text("mine")
    for target in ("mine", "none"):
        status, lines = said(folder, OUTPUTS[output].format(tmp_path / target))
        assert status == 1 and len(lines) == 1
        assert re.fullmatch(rf"qb-[a-z]+: error: cannot write .*{tmp_path}/{target}: it is a symbolic link", lines[0])
    assert (folder / "mine").read_text() == "mine" and not (folder / "none").exists()
    (folder / "mine").unlink()
    assert said(folder, f"{OUTPUTS[output].format('/dev/fd/5')} 5>{tmp_path}/out")[0] == 0
    assert (tmp_path / "out").stat().st_size > 0


@pytest.mark.parametrize("output", [name for name in OUTPUTS if "report" not in name and name != "record"])
def test_a_full_file_system(output: str, folder: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "full", "none", "tmpfs", "-o", "size=1m,nr_inodes=2") as place:
        (place / "last").write_bytes(b"")
        target = place if output in DIRECTORIES else place / "out"
        status, lines = said(folder, OUTPUTS[output].format(target))
        assert status == 1
        assert re.search(rf"qb-[a-z]+: error: cannot .*{place}.*: No space left on device", "\n".join(lines)), lines


# {} is the input.
INPUTS = {
    "list": "qb-seal --opaque --logn 10 --from-command true {}",
    "routes": "qb-unseal --to-command 'cat >/dev/null' --routes {} <a.qb",
    "header": "qb-header read {}",
    "records": "qb-manifest --backup-id " + ID + " {}",
    "lines": "qb-meta create {}",
    "xml": "qb-meta list {}",
    "metadata": "qb-meta check --metadata {}",
    "metadata of a plan": "qb-plan --host host --metadata {}",
    "metadata for a host": "qb-host apply --host host --metadata {} plan",
    "plan": "qb-backup restore --yes --host host --plan {} host.qb",
    "archive": "qb-backup verify {}",
    "passphrase": "qb-backup verify --passphrase-file {} a.qb",
    "tree": "qb-tree {} n",
    "volume": "qb-volread {}",
}


@pytest.mark.parametrize("given", INPUTS)
def test_an_input_that_is_missing(given: str, folder: Path) -> None:
    status, lines = said(folder, INPUTS[given].format("none"))
    assert (status, len(lines)) == (1, 1)
    assert re.fullmatch(r"qb-[a-z]+: error: cannot (open|read) .*none: No such file or directory", lines[0]), lines
