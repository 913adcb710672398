"""Machines with names that some version of Qubes OS allows, and with names that none allows, end to end."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hostdirs import Machine, images, inventory, make_host, noise, prop
from support import ROOT, bash, environment, run
from version3 import PASSPHRASE, Maker, joined

SECRET = {"QB_PASSPHRASE_COMMAND": "echo names"}
NAMES = [
    *("work.mail", "a.b", "vm.1", "a..b", "x.", "x.img", "Work", "work", "disp1234", "a-b"),
    *("a" * 31, "qubes.xml", "dom0-home", "none", "default", "x-dm", "private"),
]
RENAMED = {name: f"{name}-1" for name in ("qubes.xml", "dom0-home", "none", "default", "x-dm")}
WITH_NOTES = {*RENAMED, "a..b", "Work", "private"} - {"qubes.xml"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The host A, and an archive of it, a.qb."""
    place = tmp_path_factory.mktemp("names")
    files = {name: {"notes.txt": name.encode()} for name in WITH_NOTES}
    machines = [
        Machine("work.mail", data={"root": noise("work.mail", 100)}),
        *(
            Machine(name, "AppVM", {"template": "work.mail"}, {"private": noise(name, 100)}, files=files.get(name, {}))
            for name in NAMES
            if name not in ("work.mail", "qubes.xml")  # its own metadata has the path of that directory
        ),
        Machine("user", "AppVM", {"netvm": "a.b", "template": "work.mail"}, {"private": b"user"}),
    ]
    make_host(place / "A", machines, default_template="work.mail")
    done = backup("create", "--logn", "10", "-q", "--host", f"dir:{place}/A", "-o", place / "a.qb")
    assert (done.returncode, done.stderr) == (0, b"")
    return place


def backup(*words: str | Path, **changes: str) -> subprocess.CompletedProcess[bytes]:
    return run("qb-backup", *words, **SECRET, **changes)


def saved(folder: Path, renamed: dict[str, str]) -> dict[str, bytes]:
    """The images that must exist if some machines are renamed."""
    found = {}
    for path, data in images(folder / "A").items():
        name, _, image = path.partition("/")
        found[f"{renamed.get(name, name)}/{image}"] = data
    return found


def test_all_is_listed(folder: Path) -> None:
    listed = backup("list", folder / "a.qb")
    assert (listed.returncode, listed.stderr) == (0, b"")
    names = {line.split("\t")[0] for line in listed.stdout.decode().splitlines()}
    assert names == {*NAMES, "user"} - {"qubes.xml"}


def test_into_a_directory(folder: Path, tmp_path: Path) -> None:
    done = backup("restore", "-q", "--to", tmp_path / "r", folder / "a.qb")
    assert done.returncode == 0, done.stderr
    assert images(tmp_path / "r") == saved(folder, {})
    words = ["--only", "work.mail", "--map", f"work.mail:root={tmp_path}/one", "--to", tmp_path / "s"]
    assert backup("restore", "-q", *words, folder / "a.qb").returncode == 0
    assert (tmp_path / "one").read_bytes().rstrip(b"\0") == saved(folder, {})["work.mail/root.img"]
    assert list(images(tmp_path / "s")) == ["work.mail/private.img"]


def test_to_a_host(folder: Path, tmp_path: Path) -> None:
    """Reserved names of Qubes OS, and names that would collide with others, are renamed."""
    for place in ("B", "F"):
        (tmp_path / place).mkdir()
    words = ["--host", f"dir:{tmp_path}/B", "--files-to", tmp_path / "F", "--ignore-missing"]
    done = backup("restore", "--yes", *words, folder / "a.qb")
    assert done.returncode == 0, done.stderr
    assert images(tmp_path / "B") == saved(folder, RENAMED)
    warnings = done.stderr.decode().splitlines()
    assert [line for line in warnings if "will be called" in line] == [
        f"qb-backup: warning: {old} will be called {old}-1: this name is reserved"
        for old in NAMES
        if old in RENAMED and old != "qubes.xml"
    ]
    for name in WITH_NOTES:
        assert (tmp_path / "F" / RENAMED.get(name, name) / "notes.txt").read_text() == name


def test_to_a_host_that_takes_no_dots(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "B").mkdir()
    path = f"{ROOT}/tests/hosts:{environment()['PATH']}"
    words = ["--host", f"shell:{tmp_path}/B", "--ignore-missing", "--include", "*.*", "--include", "a-b"]
    planned = backup("restore", "--dry-run", *words, folder / "a.qb", PATH=path)
    lines = [line.split("\t") for line in planned.stdout.decode().splitlines() if line.startswith("create")]
    renamed = {line[1]: line[2] for line in lines}
    assert renamed == {
        **{"work.mail": "work-mail", "a.b": "a-b-1", "vm.1": "vm-1", "a..b": "a--b", "x.": "x-", "x.img": "x-img"},
        "a-b": "a-b",
    }
    done = backup("restore", "--yes", *words, folder / "a.qb", PATH=path)
    assert done.returncode == 0, done.stderr
    assert b"a.b will be called a-b-1: the host accepts no name that contains ." in done.stderr
    found = images(tmp_path / "B")
    assert found == {
        name: data for name, data in saved(folder, renamed).items() if name.split("/")[0] in renamed.values()
    }
    (tmp_path / "plan").write_bytes(planned.stdout.replace(b"\tx-img\t", b"\tx.img\t"))
    (tmp_path / "C").mkdir()
    words = ["--host", f"shell:{tmp_path}/C", "--plan", tmp_path / "plan"]
    for option in ("--verify-only", "--yes"):
        done = backup("restore", "-q", option, *words, folder / "a.qb", PATH=path)
        assert done.returncode == 5
        assert b"1 of the domains cannot be restored" in done.stderr
    assert list((tmp_path / "C").glob("*/domain.xml")) == []


ODD = ["../x", "a b", "$(id)", "é", "a" * 40, "dom0", "1st"]


def test_a_name_that_none_allows_does_not_stop_the_others(tmp_path: Path) -> None:
    """Written into metadata by hand: the others, and this one under another name, are restored."""
    for name in ("root", "other"):
        (tmp_path / f"{name}.img").write_bytes(noise(name))
    lines = "".join(f"n{at}\troot\t200000\n" for at in range(len(ODD))) + "work\troot\t200000\n"
    made = run("qb-meta", "create", data=lines.encode()).stdout.decode()
    for at, name in enumerate(ODD):
        made = made.replace(f">n{at}<", f">{name}<")
    (tmp_path / "qubes.xml").write_text(made, encoding="utf-8")
    files = [f"vm{at}/root.img\troot.img" for at in range(1, len(ODD) + 1)] + [f"vm{len(ODD) + 1}/root.img\tother.img"]
    (tmp_path / "list").write_text("\n".join(["qubes.xml\tqubes.xml", *files, "end", ""]))
    command = 'qb-volread "$QB_SOURCE" | qb-tarwrite "$QB_NAME" | gzip -c'
    done = bash(f"cd {tmp_path}; qb-seal --logn 10 --from-command '{command}' list > a.qb", **SECRET)
    assert done.returncode == 0, done.stderr
    done = backup("verify", tmp_path / "a.qb")
    assert done.returncode == 0
    assert done.stderr.count(b"warning: ") == len(ODD)
    assert b'warning: the domain name "../x" cannot be used' in done.stderr
    done = backup("restore", "-q", "--to", tmp_path / "r", tmp_path / "a.qb")
    assert done.returncode == 0
    made_up = ["vm.._x", "a_b", "vm__id_", "vm_", "a" * 24 + "-1", "dom0-1", "vm1st"]
    assert sorted(images(tmp_path / "r")) == sorted(f"{name}/root.img" for name in [*made_up, "work"])
    (tmp_path / "B").mkdir()
    done = backup("restore", "-q", "--yes", "--host", f"dir:{tmp_path}/B", tmp_path / "a.qb")
    assert done.returncode == 0
    assert list(inventory(tmp_path / "B")) == [*made_up, "work"]
    assert len(set(images(tmp_path / "B").values())) == 2


def test_an_archive_of_version_3(tmp_path: Path) -> None:
    """Names with dots are in its paths; one that begins with a digit was only warned of."""
    xml = "".join(
        f'<QubesAppVm backup_content="True" backup_path="appvms/{name}" label="red" name="{name}" qid="{qid}" '
        f'template_qid="1" netvm_qid="2" uses_default_netvm="False" pcidevs="none"/>'
        for qid, name in ((2, "sys.net"), (3, "1st"), (4, "work"))
    )
    template = '<QubesTemplateVm backup_content="False" label="black" name="fedora.23" qid="1" template_qid="none"/>'
    (tmp_path / "qubes.xml").write_text(f"<QubesVmCollection>{template}{xml}</QubesVmCollection>")
    sources = {"qubes.xml": tmp_path / "qubes.xml"}
    for name in ("sys.net", "1st", "work"):
        (tmp_path / name).mkdir()
        sources[f"appvms/{name}/private.img"] = tmp_path / name / "private.img"
        sources[f"appvms/{name}/private.img"].write_bytes(noise(name))
    (tmp_path / "a.qb").write_bytes(joined(tmp_path, Maker(tmp_path).members(sources)))
    (tmp_path / "passphrase").write_text(PASSPHRASE)
    (tmp_path / "passphrase").chmod(0o600)
    secret = {"QB_PASSPHRASE_FILE": f"{tmp_path}/passphrase"}
    assert run("qb-backup", "verify", tmp_path / "a.qb", **secret).returncode == 0
    (tmp_path / "B").mkdir()
    words = ["--yes", "--host", f"dir:{tmp_path}/B", "--ignore-missing"]
    done = run("qb-backup", "restore", "-q", *words, tmp_path / "a.qb", **secret)
    assert done.returncode == 0, done.stderr
    assert set(inventory(tmp_path / "B")) == {"sys.net", "vm1st", "work"}
    assert images(tmp_path / "B") == {
        f"{new}/private.img": (tmp_path / old / "private.img").read_bytes().rstrip(b"\0")
        for old, new in (("sys.net", "sys.net"), ("1st", "vm1st"), ("work", "work"))
    }
    assert prop(inventory(tmp_path / "B")["work"], "netvm") in ("sys.net", "")
