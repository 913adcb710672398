"""Whole machines from one host to another: qb-backup create and restore with --host, what they refuse and report."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from devices import tmpfs
from hostdirs import Machine, images, inventory, make_host, noise, not_restored, prop, unfinished
from running import OF_FILE, Running
from support import ROOT, bash, run
from terminal import Terminal

SECRET = {"QB_PASSPHRASE_COMMAND": "echo hosts"}
QUICK = ("--logn", "10")
COLUMNS = "action\tdomain\tname\tclass\ttemplate\tnetvm\tdefault_dispvm\tkernel\tsize\tproblem\n"
SAVED = ["deb", "net", "work", "alone"]
WORK = {"template": "deb", "netvm": "net"}


def machines() -> list[Machine]:
    """A template, a netvm, a machine that uses both, one without template, and one that is not saved."""
    return [
        Machine("deb", "TemplateVM", data={"root": noise("deb-root"), "private": noise("deb-private", 10)}),
        Machine("net", "AppVM", {"template": "deb", "provides_network": "True"}, {"private": noise("net-private")}),
        Machine("work", "AppVM", WORK, {"private": noise("work-private", 700_000)}, files={"firewall.xml": b"<x/>"}),
        Machine("alone", "StandaloneVM", {"netvm": "net"}, {"root": noise("alone-root"), "private": b"alone"}),
        Machine("not", "AppVM", {"template": "deb", "include_in_backups": "False"}, {"private": b"not"}),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The host A, an archive of it, a.qb, and the report of the run that made it, a.json."""
    place = tmp_path_factory.mktemp("hosts")
    make_host(place / "A", machines(), default_template="deb", default_netvm="net")
    done = backup("create", *QUICK, "-q", "--json", "--host", f"dir:{place}/A", "-o", place / "a.qb")
    assert (done.returncode, done.stderr) == (0, "")
    (place / "a.json").write_text(done.stdout)
    return place


@pytest.fixture(scope="module")
def planned(folder: Path) -> str:
    """The plan of a restore to a host without domains."""
    (folder / "empty").mkdir()
    done = restore(folder, folder / "empty", "-n")
    assert (done.returncode, done.stderr) == (0, "")
    empty(folder / "empty")
    return done.stdout


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A host without domains."""
    (tmp_path / "B").mkdir()
    return tmp_path / "B"


def backup(*words: str | Path, data: bytes = b"", **changes: str) -> subprocess.CompletedProcess[str]:
    done = run("qb-backup", *words, data=data, **SECRET, **changes)
    return subprocess.CompletedProcess([], done.returncode, done.stdout.decode("latin-1"), done.stderr.decode())


def outcome(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


def restore(folder: Path, target: Path, *words: str | Path, **changes: str) -> subprocess.CompletedProcess[str]:
    return backup("restore", "--host", f"dir:{target}", *words, folder / "a.qb", **changes)


def wanted(folder: Path, *names: str) -> dict[str, bytes]:
    """The images that these machines must have."""
    return {name: data for name, data in images(folder / "A").items() if name.split("/")[0] in (names or SAVED)}


def whole(folder: Path, target: Path, *names: str) -> None:
    """These machines exist, and nothing else."""
    assert list(inventory(target)) == list(names or SAVED)
    assert images(target) == wanted(folder, *names)
    assert unfinished(target) == set()
    assert {path.name for path in target.iterdir()} <= {*(names or SAVED), "qubes.xml", "qubes.xml.lock"}


def empty(target: Path) -> None:
    """Nothing was created, or everything has been removed."""
    assert not (target / "qubes.xml").exists() or inventory(target) == {}
    assert {path.name for path in target.iterdir()} <= {"qubes.xml", "qubes.xml.lock"}


# --- short options ---


def test_n_is_dry_run(folder: Path, planned: str, target: Path, tmp_path: Path) -> None:
    """Of apply. The fixture planned, and tests below, have the short options of create and restore."""
    assert planned.count("create\t") == 4
    (tmp_path / "plan").write_text(planned)
    saved = bash(f"qb-unseal qubes.xml <{folder}/a.qb | gzip -dc | qb-tarextract --raw", **SECRET)
    (tmp_path / "qubes.xml").write_bytes(saved.stdout)
    apply = f"qb-host apply --host {target} --metadata {tmp_path}/qubes.xml {tmp_path}/plan"
    short, long = (bash(f"{apply} {option}") for option in ("-n", "--dry-run"))
    assert (short.returncode, short.stdout, short.stderr) == (0, long.stdout, long.stderr)
    assert short.stdout.count(b"\n") > 4
    empty(target)


# --- from one to the other ---


def test_a_pipe_from_host_to_host(folder: Path, target: Path) -> None:
    into = f"qb-backup restore -q --yes --ignore-missing --host dir:{target}"
    done = bash(f"qb-backup create -q --logn 10 --host dir:{folder}/A net work | {into}", **SECRET)
    assert (done.returncode, done.stdout, done.stderr.decode()) == (0, b"", not_restored("vm3/firewall.xml"))
    whole(folder, target, "net", "work")


def test_what_is_in_the_archive(folder: Path) -> None:
    """The first file is metadata of the saved domains and dom0 only; qb-backup reads it like any archive."""
    members = bash(f"tar -tf {folder}/a.qb").stdout.decode().split()
    assert members == [
        *("backup-header", "backup-header.hmac", "qubes.xml.000.enc"),
        *("vm1/root.img.000.enc", "vm1/private.img.000.enc", "vm2/private.img.000.enc", "vm3/private.img.000.enc"),
        *("vm3/firewall.xml.000.enc", "vm4/root.img.000.enc", "vm4/private.img.000.enc", "qb-manifest.000.enc"),
    ]
    assert outcome(backup("verify", folder / "a.qb")) == (0, "", "")
    listed = backup("list", folder / "a.qb").stdout.splitlines()
    assert [line.split("\t")[0] for line in listed] == ["deb", "deb", "net", "work", "alone", "alone"]


def test_names_that_are_taken(folder: Path, target: Path) -> None:
    """A restore to the host that has them makes other machines, which use each other."""
    shutil.copytree(folder / "A", target, dirs_exist_ok=True)
    done = restore(folder, target, "--yes")
    assert (done.returncode, done.stdout) == (0, "")
    assert "#   work-1: netvm: net → net-1\n" in done.stderr
    found = inventory(target)
    assert list(found) == [*SAVED, "not", *(f"{name}-1" for name in SAVED)]
    assert (prop(found["work-1"], "template"), prop(found["work-1"], "netvm")) == ("deb-1", "net-1")
    expected = wanted(folder)
    assert images(target) == {
        **images(folder / "A"),
        **{name.replace("/", "-1/"): data for name, data in expected.items()},
    }
    done = restore(folder, target, "-q", "--yes", "--no-rename")
    assert done.returncode == 5
    assert len(inventory(target)) == 9


def test_some_of_them(folder: Path, target: Path) -> None:
    words = ("--include", "net", "--include", "[dw]*", "--exclude", "d*", "--ignore-missing")
    assert outcome(restore(folder, target, "-qy", *words))[:2] == (0, "")
    whole(folder, target, "net", "work")
    done = restore(folder, target, "-q", "--yes", "--include", "work", "--rename", "work=play", "--ignore-missing")
    assert outcome(done) == (0, "", not_restored("vm3/firewall.xml"))
    assert list(inventory(target)) == ["net", "work", "play"]
    assert images(target)["play/private.img"] == wanted(folder)["work/private.img"]


def test_what_is_saved(folder: Path, tmp_path: Path) -> None:
    create = ("create", *QUICK, "-q", "--host", f"dir:{folder}/A")
    for words, saved in (
        (("--exclude", "*e*"), ["work"]),
        (("--include", "n*", "alone"), ["net", "alone"]),
    ):
        planned = backup(*create, "--dry-run", "--json", *words).stdout
        assert sorted(one["name"] for one in json.loads(planned)["domains"]) == sorted(saved)
    assert outcome(backup(*create, "-o", tmp_path / "s.qb", "work", "not")) == (0, "", "")
    listed = backup("list", "--json", tmp_path / "s.qb").stdout
    assert sorted(one["name"] for one in json.loads(listed)["domains"]) == ["not", "work"]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("nobody",), 2, "qb-backup: error: there is no domain nobody\n"),
        (("--include", "x*"), 2, "qb-backup: error: no domain matches x*\n"),
        (
            ("--exclude", "*"),
            5,
            "qb-backup: error: no domain is selected for backup\nhint: name one, or set include_in_backups\n",
        ),
        (("--json", "work"), 2, "qb-backup: error: --json needs --output: the archive is on standard output\n"),
        (("--yes", "work"), 2, "qb-backup: error: --yes does not go with create\n"),
    ],
)
def test_what_create_refuses(words: tuple[str, ...], status: int, message: str, folder: Path) -> None:
    done = backup("create", *QUICK, "-q", "--host", f"dir:{folder}/A", *words)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(message)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--host", "dir:none", "--yes"), 1, "none: No such file"),
        (("--host", "nothing:x", "--yes"), 2, "there is no host of the kind nothing"),
        (("--host", "", "--yes"), 2, "--host: the name is empty"),
        (("--host", "dir:.", "--to", "x"), 2, "--to does not go with --host"),
        (("--host", "dir:.", "--overwrite", "--yes"), 2, "--overwrite does not go with --host"),
        (
            ("--host", "dir:.", "--plan", "x", "--include", "y"),
            2,
            "--include, --exclude and --only do not go with --plan",
        ),
        (("--host", "dir:.", "--plan", "none", "--yes"), 1, "none: No such file"),
        (("--host", "dir:.", "--files-to", "none", "--yes"), 1, "cannot write to none: No such file or directory"),
        (("--to", "x", "--yes"), 2, "--yes needs --host"),
        (("--to", "x", "--json"), 2, "--json needs --host"),
        (("--host", "dir:.", "--state", "current"), 2, "--state does not go with restore"),
    ],
)
def test_what_restore_refuses(words: tuple[str, ...], status: int, message: str, folder: Path, target: Path) -> None:
    done = bash(
        f"cd {target} && qb-backup restore {' '.join(word or repr('') for word in words)} {folder}/a.qb", **SECRET
    )
    assert (done.returncode, done.stdout) == (status, b""), done.stderr
    assert message in done.stderr.decode()
    empty(target)


# --- the plan ---


def test_without_a_terminal_nothing_is_done(folder: Path, target: Path) -> None:
    done = restore(folder, target)
    assert outcome(done) == (
        5,
        "",
        "qb-backup: error: there is no terminal to ask for confirmation\nhint: --yes goes on without asking\n",
    )
    empty(target)


@pytest.mark.parametrize("answer", ["y", "YES", "", "what?"])
def test_the_question(answer: str, folder: Path, target: Path) -> None:
    words = ("--host", f"dir:{target}", "--include", "net", "--ignore-missing")
    with Terminal("qb-backup", "restore", *words, f"{folder}/a.qb", **SECRET) as tty:
        tty.expect(b"Restore this? [y/N] ")
        tty.type(answer.encode() + b"\n")
        done = tty.finish()
    if answer.lower().startswith("y"):
        assert done.returncode == 0, done.stderr
        whole(folder, target, "net")
    else:
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.endswith(b"end\nqb-backup: error: nothing was restored\n")
        empty(target)


def test_a_question_that_is_interrupted(folder: Path, target: Path) -> None:
    with Terminal("qb-backup", "restore", "--host", f"dir:{target}", f"{folder}/a.qb", **SECRET) as tty:
        tty.expect(b"Restore this? [y/N] ")
        tty.type(b"\x03")
        assert tty.finish().returncode in (-2, 130)
    empty(target)


def test_a_plan_that_is_looked_at_changed_and_carried_out(
    folder: Path, planned: str, target: Path, tmp_path: Path
) -> None:
    assert COLUMNS + "create\tdeb\tdeb\tTemplateVM\t-\t" in planned and planned.endswith("end\n")
    assert len(json.loads(restore(folder, target, "--dry-run", "--json").stdout)["domains"]) == 4
    empty(target)
    plan = tmp_path / "plan"
    changed = planned.replace("create\tdeb\tdeb\t", "create\tdeb\tdebian\t").replace("create\talone", "skip\talone")
    plan.write_text(changed.replace("\tdeb\tdefault\t", "\tdebian\tdefault\t").replace("\tdeb\tnet", "\tdebian\tnet"))
    done = restore(folder, target, "-q", "--yes", "--plan", plan)
    assert outcome(done)[:2] == (0, ""), done.stderr
    assert list(inventory(target)) == ["debian", "net", "work"]
    assert {prop(inventory(target)[name], "template") for name in ("net", "work")} == {"debian"}
    assert images(target)["debian/root.img"] == wanted(folder)["deb/root.img"]


def test_a_plan_with_a_problem_ends_it_before_anything_is_made(folder: Path, target: Path) -> None:
    words = ("--include", "work", "--include", "alone", "--default-template", "none", "--netvm", "none")
    done = restore(folder, target, "--yes", "--json", *words)
    assert done.returncode == 5
    reason = "template: deb is not restored"
    error = f"1 of the domains cannot be restored: work ({reason})"
    assert json.loads(done.stdout) == {"error": error, "status": 5, "domains": [], "left_out": []}
    assert done.stderr.endswith(
        f"end\nqb-backup: error: {error}\nhint: change the plan, or make it with --skip-broken or --ignore-missing\n"
    )
    empty(target)
    done = restore(folder, target, "--dry-run", *words)
    assert done.returncode == 5 and "template: deb" in done.stdout
    done = restore(folder, target, "-q", "--yes", "--skip-broken", "--json", *words)
    assert (done.returncode, done.stderr) == (0, f"qb-backup: warning: work is left out: {reason}\n")
    made = json.loads(done.stdout)
    assert made["error"] is None and made["left_out"] == [{"name": "work", "reason": reason}]
    whole(folder, target, "alone")
    assert "netvm" in {one.get("name") for one in inventory(target)["alone"].iter("property")}


# --- reports ---


def test_a_table_of_what_would_be_saved(folder: Path, tmp_path: Path) -> None:
    done = backup("create", "--host", folder / "A", "-n", "-o", tmp_path / "new.qb")
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (0, "", [])
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["domain", *SAVED, "total", "left"]
    assert lines[-1] == "left out: not (include_in_backups is not set)"
    document = json.loads(backup("create", "--host", folder / "A", "--dry-run", "--json").stdout)
    assert [one["name"] for one in document["domains"]] == SAVED
    assert document["domains"][2]["files"] == ["firewall.xml"]


def test_reports_as_json(folder: Path, target: Path) -> None:
    saved = json.loads((folder / "a.json").read_text())
    assert saved["status"] == 0
    assert [(one["name"], one["volumes"], one["problem"]) for one in saved["domains"]] == [
        *(("deb", 2, None), ("net", 1, None), ("work", 1, None), ("alone", 2, None)),
    ]
    assert saved["domains"][0]["bytes"] == 2 << 20 and saved["domains"][0]["seconds"] > 0
    assert {one["state"] for one in saved["domains"]} <= {"stopped", "snapshot"}
    done = restore(folder, target, "-q", "--yes", "--json")
    whole(folder, target)
    work = inventory(target)["work"]
    assert (prop(work, "template"), prop(work, "netvm")) == ("deb", "net")
    assert (done.returncode, done.stderr) == (0, not_restored("vm3/firewall.xml"))
    made = json.loads(done.stdout)
    assert made["left_out"] == [{"name": "vm3/firewall.xml", "reason": "needs --files-to"}]
    assert [(one["name"], one["bytes"], one["problem"]) for one in made["domains"]] == [
        *(("deb", 2 << 20, None), ("net", 1 << 20, None), ("work", 1 << 20, None), ("alone", 2 << 20, None)),
    ]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (3, "restore --yes --passphrase-command 'echo wrong' --host {target} {folder}/a.qb"),
        (3, "restore --dry-run --passphrase-command 'echo wrong' --host {target} {folder}/a.qb"),
        (1, "restore --yes --host {target} {folder}/none.qb"),
        (1, "restore --yes --files-to {folder}/none --host {target} {folder}/a.qb"),
        (4, "restore --yes --plan /dev/null --host {target} {folder}/a.qb"),
        (1, "restore --yes --host {folder}/none {folder}/a.qb"),
        (1, "restore --dry-run --host {folder}/none {folder}/a.qb"),
        (1, "create -o {target}/x.qb --host {folder}/none"),
        (1, "create --dry-run --host {folder}/none"),
        (5, "restore --host {target} {folder}/a.qb"),
        (5, "create -o {folder}/a.qb --host {folder}/A"),
    ],
)
def test_a_report_of_a_run_that_did_not_begin(status: int, words: str, folder: Path, target: Path) -> None:
    done = bash(f"qb-backup {words.format(folder=folder, target=target)} --json -q", **SECRET)
    assert done.returncode == status, done.stderr
    document = json.loads(done.stdout)
    assert document["status"] == status
    # A stage may have printed the error before the run began.
    assert document.get("error") or done.stderr.startswith("qb-unseal: "), done.stderr
    empty(target)


def test_a_report_that_cannot_be_written(folder: Path, target: Path) -> None:
    words = f"restore -q --yes --json --include net --ignore-missing --host {target} {folder}/a.qb"
    assert bash(f"qb-backup {words} >/dev/full", **SECRET).returncode == 1


def test_verify_only_makes_nothing(folder: Path, target: Path) -> None:
    done = restore(folder, target, "-q", "--verify-only", "--json")
    assert (done.returncode, done.stderr) == (0, not_restored("vm3/firewall.xml"))
    assert [(one["bytes"], one["problem"]) for one in json.loads(done.stdout)["domains"]] == [
        *((2 << 20, None), (1 << 20, None), (1 << 20, None), (2 << 20, None)),
    ]
    empty(target)


# --- what fails ---

BROKEN = '[ "$QB_NAME" != {name} ] || {{ gzip "$@" | head -c 2000; exit 1; }}\nexec gzip "$@"\n'
NO_GOOD = "qb-decompress: error: standard input cannot be decompressed: igzip ended with status 1\n"


def broken(running: Running, name: str) -> None:
    """The decompressor fails for one file."""
    running.program("igzip", OF_FILE + BROKEN.format(name=name))


@pytest.fixture
def running(folder: Path, tmp_path: Path) -> Running:
    (tmp_path / "run").mkdir()
    return Running(tmp_path / "run", folder, **SECRET)


def test_a_volume_that_fails_ends_all(folder: Path, target: Path, running: Running) -> None:
    with running:
        broken(running, "vm3/private.img")
        words = "--include net --include work --ignore-missing"
        running.start(f"qb-backup restore -q --yes {words} --host dir:{target} a.qb")
        assert running.end() == (4, NO_GOOD)
    empty(target)


def test_going_on_without_a_volume(folder: Path, target: Path, running: Running) -> None:
    with running:
        broken(running, "vm3/private.img")
        words = "--json --keep-going --exclude deb --ignore-missing"
        process = running.start(f"qb-backup restore -q --yes {words} --host dir:{target} a.qb")
        stdout, stderr = process.communicate()
    warning = "qb-backup: warning: 1 of 3 domains failed: work (vm3/private.img failed)\n"
    assert (process.returncode, stderr.decode()) == (4, NO_GOOD + warning)
    assert [one["problem"] for one in json.loads(stdout)["domains"]] == [None, "vm3/private.img failed", None]
    whole(folder, target, "net", "alone")


def test_a_machine_that_needs_a_failed_one_fails_too(folder: Path, target: Path, running: Running) -> None:
    """A template of the archive that has no replacement."""
    with running:
        broken(running, "vm1/private.img")
        words = "--keep-going --default-template none --exclude net --netvm none"
        running.start(f"qb-backup restore -q --yes {words} --host dir:{target} a.qb")
        status, stderr = running.end()
        assert status == 4 and stderr.startswith(NO_GOOD + "qb-backup: warning: ")
    whole(folder, target, "alone")


def test_keeping_what_failed(folder: Path, target: Path, running: Running) -> None:
    with running:
        broken(running, "vm3/private.img")
        words = "--keep-going --keep-failed --include net --include work --ignore-missing"
        running.start(f"qb-backup restore -q --yes {words} --host dir:{target} a.qb")
        status, stderr = running.end()
        assert status == 4 and stderr.startswith(NO_GOOD + "qb-backup: warning: ")
    assert list(inventory(target)) == ["net", "work"]
    assert unfinished(target) == {"work"}


def test_verify_only_finds_what_fails(target: Path, running: Running) -> None:
    with running:
        broken(running, "vm3/private.img")
        running.start(f"qb-backup restore -q --verify-only --host dir:{target} a.qb")
        assert running.end() == (4, NO_GOOD)
    empty(target)


def test_an_archive_that_is_cut(folder: Path, target: Path) -> None:
    """With --keep-going, machines that are complete by then stay."""
    data = (folder / "a.qb").read_bytes()
    cut = data[: data.index(b"vm4/root.img.000.enc") + 50_000]
    words = ("--include", "net", "--include", "alone", "--ignore-missing", "--host", f"dir:{target}")
    done = backup("restore", "-q", "--yes", *words, data=cut)
    assert done.returncode == 4
    empty(target)
    done = backup("restore", "-q", "--yes", "--keep-going", *words, data=cut)
    assert done.returncode == 4
    whole(folder, target, "net")


def test_a_volume_that_is_missing(folder: Path, target: Path, tmp_path: Path) -> None:
    """Without a manifest only the metadata shows that it must exist."""
    made = bash(
        f"cd {tmp_path} && id=$(qb-header id) && {{ qb-header write --no-manifest --logn 10 --backup-id $id &&"
        f" for name in qubes.xml vm1/root.img; do qb-unseal $name <{folder}/a.qb |"
        " qb-seal --logn 10 --backup-id $id $name || exit; done && head -c 10240 /dev/zero; } >no.qb",
        **SECRET,
    )
    assert (made.returncode, made.stderr) == (0, b"")
    for words in ((), ("--keep-going",)):
        words = ("--json", "--include", "deb", *words)
        done = backup("restore", "-q", "--yes", "--host", f"dir:{target}", *words, tmp_path / "no.qb")
        assert done.returncode == 4, done.stderr
        assert "is not in the archive" in done.stderr
        assert "vm1/private.img is missing in the archive" in done.stdout
        empty(target)


# --- before the first byte ---


def test_the_others_are_saved_without_a_machine_that_cannot_be(tmp_path: Path, target: Path) -> None:
    """An image of one is missing: the machine is not in the metadata, either, and the status reports it."""
    host = make_host(tmp_path / "A", machines()[2:4])
    (host / "alone/private.img").unlink()
    words = ("create", *QUICK, "--json", "--host", f"dir:{host}", "-o")
    done = backup(*words, tmp_path / "a.qb")
    assert done.returncode == 1
    reason = f"cannot open {host}/alone/private.img: No such file or directory"
    assert f"qb-backup: warning: alone cannot be saved: {reason}\n" in done.stderr
    assert done.stderr.splitlines()[-1] == f"qb-backup: error: 1 of 2 domains cannot be saved: alone ({reason})"
    found = json.loads(done.stdout)
    assert {one["name"]: one["problem"] for one in found["domains"]} == {"work": None, "alone": reason}
    assert (found["status"], found["archive"]) == (1, str(tmp_path / "a.qb"))
    assert found["bytes"] == (tmp_path / "a.qb").stat().st_size and found["seconds"] > 0
    assert reason in found["error"] and found["backup_id"] in done.stderr
    assert outcome(backup("verify", tmp_path / "a.qb")) == (0, "", "")
    listed = backup("list", tmp_path / "a.qb").stdout.splitlines()
    assert [line.split("\t")[0] for line in listed] == ["work"]
    done = backup("restore", "-q", "--yes", "--ignore-missing", "--host", f"dir:{target}", tmp_path / "a.qb")
    assert outcome(done) == (0, "", not_restored("vm1/firewall.xml"))
    done = backup(*words, tmp_path / "s.qb", "--strict")
    assert done.returncode == 1
    assert done.stderr == f"qb-backup: error: alone cannot be saved: {reason}\n"
    assert json.loads(done.stdout)["error"] == f"alone cannot be saved: {reason}"
    assert not list(tmp_path.glob("s.qb*"))
    done = backup("create", "--dry-run", "--host", f"dir:{host}")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == f"cannot be saved: alone: {reason}"
    done = backup("create", "--dry-run", "--json", "--host", f"dir:{host}")
    assert json.loads(done.stdout)["failed"] == [{"name": "alone", "reason": reason}]


def test_nothing_that_can_be_saved_is_no_archive(tmp_path: Path) -> None:
    host = make_host(tmp_path / "A", machines())
    (host / "alone/private.img").unlink()
    done = backup("create", *QUICK, "-q", "--json", "--host", f"dir:{host}", "-o", tmp_path / "a.qb", "alone")
    assert done.returncode == 1
    assert "1 of 1 domains cannot be saved: alone (" in done.stderr
    assert json.loads(done.stdout)["archive"] is None
    assert not list(tmp_path.glob("a.qb*"))


def test_a_running_machine_without_snapshots(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "memory", 64 << 20) as place:
        host = make_host(place / "A", machines()[1:3])
        with (host / "work/private.img").open("r+b"):
            done = backup("create", *QUICK, "-q", "--host", f"dir:{host}", "-o", tmp_path / "a.qb", "--strict")
            assert (done.returncode, done.stdout) == (5, "")
            assert done.stderr.startswith("qb-backup: error: work cannot be saved: the machine runs; ")
            assert f"process {os.getpid()} (" in done.stderr
            assert "has it open for writing" in done.stderr and "no snapshot can be taken" in done.stderr
            assert "--state=current" in done.stderr
            assert not list(tmp_path.glob("a.qb*"))
            done = backup("create", *QUICK, "-q", "--host", f"dir:{host}", "-o", tmp_path / "rest.qb")
            assert done.returncode == 1
            (line,) = [line for line in done.stderr.splitlines() if "warning: work cannot be saved: " in line]
            for words in ("the machine runs", f"process {os.getpid()} (", "shut it down, or use --state=current"):
                assert words in line
            done = backup("create", *QUICK, "-q", "--host", f"dir:{host}", "--state=current", "-o", tmp_path / "a.qb")
            assert outcome(done) == (0, "", "")


FAILING = OF_FILE + '[ "$QB_NAME" != vm3/private.img ] || exit 3\nexec gzip -c\n'
LOST = "the archive is complete but for 1 file that failed when saved: vm3/private.img"


def test_a_file_that_fails_while_it_is_saved(folder: Path, running: Running, tmp_path: Path) -> None:
    with running:
        running.program("igzip", FAILING)
        process = running.start(f"qb-backup create -q --strict --json --logn 10 --host dir:A -o {tmp_path}/f.qb")
        stdout, stderr = process.communicate()
    assert (process.returncode, stderr) == (1, b"qb-compress: error: igzip ended with status 3\n")
    assert [one["problem"] for one in json.loads(stdout)["domains"]] == [
        "the archive is not complete",
        "the archive is not complete",
        "vm3/private.img failed",
        "vm4/root.img was not saved",
    ]
    assert not list(tmp_path.glob("f.qb*"))
    assert sorted(os.listdir(folder / "A/work")) == ["firewall.xml", "private.img"]


def test_the_others_are_saved_if_a_machine_fails_halfway(
    folder: Path, running: Running, tmp_path: Path, target: Path
) -> None:
    """The manifest names its file, and the last line says how Qubes OS would restore it."""
    archive = tmp_path / "f.qb"
    with running:
        running.program("igzip", FAILING)
        words = f"create --json --logn 10 --id-file {tmp_path}/id --host dir:A -o {archive} net work alone"
        process = running.start(f"qb-backup {words}")
        stdout, stderr = process.communicate()
    reason = "qb-compress: igzip ended with status 3"
    said = stderr.decode().splitlines()
    assert process.returncode == 1
    assert f"qb-backup: warning: work is not saved completely: vm3/private.img: {reason}" in said
    assert said[-2:] == [
        f"qb-backup: error: 1 of 3 domains cannot be saved: work (vm3/private.img: {reason})",
        "hint: only a part of it is in the archive, so Qubes OS would restore it broken: work",
    ]
    found = json.loads(stdout)
    assert [(one["problem"], one["broken"]) for one in found["domains"]] == [
        *((None, False), (f"vm3/private.img: {reason}", True), (None, False)),
    ]
    assert (found["status"], found["archive"], found["bytes"]) == (1, str(archive), archive.stat().st_size)
    assert (tmp_path / "id").read_text().strip() == found["backup_id"]
    done = backup("list", archive)
    assert (done.returncode, done.stderr) == (0, f"qb-unseal: warning: {LOST}\n")
    assert outcome(backup("verify", archive)) == (4, "", f"qb-unseal: error: {LOST}\n")
    done = backup("restore", "--to", tmp_path / "some", "--only", "net", archive)
    assert outcome(done) == (0, "", f"qb-unseal: warning: {LOST}\n")
    done = backup("restore", "--to", tmp_path / "all", archive)
    assert done.returncode == 4 and f"qb-unseal: error: {LOST}\n" in done.stderr
    assert images(tmp_path / "all") == wanted(folder, "net", "alone")
    done = backup("restore", "-q", "--yes", "--json", "--ignore-missing", "--host", f"dir:{target}", archive)
    assert (done.returncode, done.stderr) == (4, f"qb-unseal: error: {LOST}\n")
    assert [one["problem"] for one in json.loads(done.stdout)["domains"]] == [
        *(None, "vm3/private.img: failed when it was saved", None),
    ]
    whole(folder, target, "net", "alone")


def test_an_archive_for_each_domain(folder: Path, running: Running, tmp_path: Path, target: Path) -> None:
    """A domain whose archive exists, or that fails, does not affect the others. The passphrase is read once."""
    place = tmp_path / "each"
    place.mkdir()
    (place / "deb.qbk").write_bytes(b"before")
    with running:
        running.program("igzip", OF_FILE + '[ "$QB_NAME" != vm3/private.img ] || exit 3\nexec gzip -c\n')
        words = f"create -q --each --json --logn 10 --passphrase-fd 3 --host dir:A -o {place} 3<<<hosts"
        process = running.start(f"exec qb-backup {words}")
        stdout, _stderr = process.communicate()
    assert process.returncode == 1
    found = {one["name"]: one for one in json.loads(stdout)["domains"]}
    assert {name: one["problem"] for name, one in found.items()} == {
        **{"deb": f"{place}/deb.qbk already exists", "net": None},
        **{"work": "qb-compress: igzip ended with status 3", "alone": None},
    }
    assert sorted(path.name for path in place.iterdir()) == ["alone.qbk", "deb.qbk", "net.qbk"]
    assert (place / "deb.qbk").read_bytes() == b"before"
    for name in ("alone", "net"):
        assert found[name]["archive"] == f"{place}/{name}.qbk"
        assert found[name]["archive_bytes"] == (place / f"{name}.qbk").stat().st_size
    ids = {name: found[name]["backup_id"] for name in ("alone", "net")}
    assert outcome(backup("verify", "--expect-id", ids["alone"], place / "alone.qbk")) == (0, "", "")
    words = ("--ignore-missing", "--host", f"dir:{target}", "--expect-id", ids["net"])
    assert outcome(backup("restore", "-q", "--yes", *words, place / "net.qbk")) == (0, "", "")
    whole(folder, target, "net")
    done = backup("create", "--each", "--host", folder / "A", "-o", tmp_path / "none")
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        1,
        f"qb-backup: error: cannot write to {tmp_path}/none: No such file or directory",
    )


def test_a_signal_between_two_archives(folder: Path, running: Running, tmp_path: Path) -> None:
    """Those that are complete stay, and nothing else."""
    place = tmp_path / "each"
    place.mkdir()
    running.hold_in("vm3/private.img", 100_000)
    with running:
        process = running.start(f"qb-backup create -q --each --json --logn 10 --host dir:A -o {place} net work alone")
        running.hold()
        os.kill(running.one("qb-run"), signal.SIGTERM)
        stdout, stderr = process.communicate()
        running.gone()
    assert process.returncode in (143, -signal.SIGTERM)  # bash may have become the program
    assert sorted(path.name for path in place.iterdir()) == ["net.qbk"]
    assert outcome(backup("verify", place / "net.qbk")) == (0, "", "")
    found = json.loads(stdout)
    assert [(one["name"], one["problem"]) for one in found["domains"]] == [
        *(("net", None), ("work", "the run ended early"), ("alone", "the run ended early")),
    ]
    assert found["status"] == 143


def test_a_directory_without_metadata(tmp_path: Path) -> None:
    """The message says so; the manual shows how to make the metadata."""
    (tmp_path / "A/work").mkdir(parents=True)
    (tmp_path / "A/work/root.img").write_bytes(b"work".ljust(8192, b"\0"))
    for words in (("work",), (), ("--dry-run",)):
        done = backup("create", "--host", f"dir:{tmp_path}/A", "-o", tmp_path / "a.qb", *words)
        assert outcome(done) == (
            5,
            "",
            f"qb-backup: error: {tmp_path}/A has no qubes.xml, which names the domains of a directory\n"
            "hint: qb-meta create makes one: see the examples in qb-host-dir(1)\n",
        )
    page = run("mandoc", "-Tutf8", "-Owidth=200", ROOT / "man/qb-host-dir.1").stdout.decode()
    page = re.sub(".\b", "", page)
    text = page.partition("cd /srv/vms")[2].partition("Restore to")[0]
    made = bash(f"cd {tmp_path}/A{text}", **SECRET)
    assert (made.returncode, made.stderr) == (0, b"")
    done = backup("create", *QUICK, "-q", "--host", f"dir:{tmp_path}/A", "-o", tmp_path / "a.qb")
    assert outcome(done) == (0, "", "")
    assert backup("list", tmp_path / "a.qb").stdout.startswith("work\tStandaloneVM\troot\t")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("\t", "  "), "line 4 has spaces between its columns"),
        (lambda text: text.replace("\tAppVM\t", "    AppVM    "), "line 6 has spaces between its columns"),
        (lambda text: text.replace("\nend\n", "\n"), "ends without its line end"),
        (lambda text: text.replace("\nskip", "\nkeep").replace("\ncreate", "\nmake", 1), "line 5: an action is"),
    ],
)
def test_a_plan_that_an_editor_has_changed(
    change: Callable[[str], str], message: str, folder: Path, planned: str, target: Path, tmp_path: Path
) -> None:
    """The message names the file of the user."""
    (tmp_path / "my.plan").write_text(change(planned))
    done = restore(folder, target, "-q", "--yes", "--plan", tmp_path / "my.plan")
    assert done.returncode == 4
    assert re.match(rf"qb-backup: error: {tmp_path}/my.plan:? {message}", done.stderr), done.stderr
    empty(target)


def test_an_empty_id_is_a_usage_error(folder: Path) -> None:
    for words in (("qb-backup", "list", "--expect-id", "", folder / "a.qb"), ("qb-unseal", "--list", "--expect-id=")):
        done = run(*words, **SECRET)
        assert done.returncode == 2 and b"error: --expect-id: the ID is empty\n" in done.stderr
    done = run("qb-header", "read", "--expect-id=", folder / "a.qb", **SECRET)
    assert done.returncode == 2 and b"error: --expect-id: the ID is empty\n" in done.stderr
