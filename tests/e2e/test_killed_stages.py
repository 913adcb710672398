"""Each stage of each pipe is killed by SIGKILL in the middle: the run fails, and nothing incomplete looks complete.

The valve stops the pipe when data has passed every stage and all of them have more to do.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from running import Running, kill, wait_until, words
from support import bash, run

SIZE = 12 << 20
"""Bytes of the volume: more than all pipes and buffers between the valve and qb-volread hold."""

SEAL = "--logn 10 --chunk-size 512K -j 1"
MEMBER = "vm1/root.img"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume, archives of it, a passphrase."""
    place = tmp_path_factory.mktemp("killed")
    (place / "root.img").write_bytes(os.urandom(SIZE))
    (place / "passphrase").write_text("killed\n")
    (place / "passphrase").chmod(0o600)
    (place / "list").write_text("vm1/empty\t/dev/null\nvm1/root.img\troot.img\nvm1/c\t/dev/null\nend\n")
    made = bash(
        f"cd {place} && qb-volread root.img | qb-tarwrite {MEMBER} | gzip -1c |"
        f" qb-seal {SEAL} --passphrase-file passphrase {MEMBER} >by-hand.qb &&"
        " qb-backup create -q --logn 10 --chunk-size 512K --passphrase-file passphrase -o backup.qb vm1:root=root.img"
    )
    assert (made.returncode, made.stderr) == (0, b"")
    return place


@pytest.fixture
def running(folder: Path, tmp_path: Path) -> Running:
    return Running(tmp_path, folder, QB_PASSPHRASE_FILE=str(folder / "passphrase"), OUT=str(tmp_path / "out"))


def complete(archive: Path, folder: Path) -> bool:
    """Whether an archive is accepted as complete."""
    done = run("qb-unseal", "--verify", "--passphrase-file", folder / "passphrase", data=archive.read_bytes())
    assert done.returncode in (0, 4), done.stderr
    return done.returncode == 0


def test_nobody_is_killed(running: Running, folder: Path, tmp_path: Path) -> None:
    """The pipes of the other tests work if nothing is killed."""
    with running:
        running.start(
            f"qb-volread root.img | qb-tarwrite {MEMBER} | gzip -1c | qb-seal {SEAL} {MEMBER} | valve 100000 >$OUT.new"
            f" && qb-unseal {MEMBER} <$OUT.new | gzip -dc | qb-tarextract | qb-volwrite $OUT"
        )
        running.hold()
        running.release()
        assert running.end() == (0, "")
    assert complete(tmp_path / "out.new", folder)
    assert (tmp_path / "out").read_bytes() == (folder / "root.img").read_bytes()


@pytest.mark.parametrize("stage", ["qb-volread", "qb-tarwrite", "gzip", "qb-seal", "valve"])
def test_saving_by_hand(stage: str, running: Running, tmp_path: Path) -> None:
    with running:
        running.start(
            f"qb-volread root.img | qb-tarwrite {MEMBER} | gzip -1c | qb-seal {SEAL} {MEMBER} |"
            " valve 100000 >$OUT.new && mv $OUT.new $OUT"
        )
        running.hold()
        kill(running.one(stage), signal.SIGKILL)
        running.release()
        assert running.end()[0] != 0
        running.gone()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["qb-volread", "qb-tarwrite", "gzip", "valve"])
def test_our_own_end_marks_are_missing_after_a_killed_stage(
    stage: str, running: Running, folder: Path, tmp_path: Path
) -> None:
    """For users who do not check all statuses: qb-seal notices most cases, and the restore of the others fails."""
    with running:
        running.start(
            f"qb-volread root.img | valve 3000000 | qb-tarwrite {MEMBER} | gzip -1c | qb-seal {SEAL} {MEMBER} >$OUT.qb",
            pipefail=False,
        )
        running.hold()
        kill(running.one(stage), signal.SIGKILL)
        running.release()
        sealed = running.end()[0]
        restored = bash(
            f"cd {tmp_path} && qb-unseal {MEMBER} <out.qb | gzip -dc 2>/dev/null | qb-tarextract | qb-volwrite target;"
            ' printf %s "${PIPESTATUS[*]}"',
            QB_PASSPHRASE_FILE=str(folder / "passphrase"),
        )
    statuses = restored.stdout.split()
    assert sealed in (0, 4)  # only the size in gzip's trailer tells: one cut in 512 looks like a whole archive
    assert (statuses[0], statuses[3]) == (b"%d" % sealed, b"4"), restored.stderr
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("stage", ["qb-unseal", "gzip", "qb-tarextract", "valve", "qb-volwrite"])
def test_restoring_by_hand(stage: str, running: Running, tmp_path: Path) -> None:
    """Even without pipefail: the last stage notices by itself."""
    with running:
        running.start(
            f"qb-unseal {MEMBER} <by-hand.qb | gzip -dc | qb-tarextract | valve 100000 | qb-volwrite $OUT",
            pipefail=False,
        )
        running.hold()
        kill(running.one(stage), signal.SIGKILL)
        running.release()
        assert running.end()[0] == (137 if stage == "qb-volwrite" else 4)
        running.gone()
    assert os.listdir(tmp_path).count("out") == 0
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".qb-volwrite")]


@pytest.mark.parametrize("stage", ["qb-volread", "qb-tarwrite", "valve", "gzip"])
def test_a_stage_of_from_command(stage: str, running: Running, folder: Path, tmp_path: Path) -> None:
    with running:
        running.start(
            f"qb-seal {SEAL} --opaque --from-command"
            ' \'if [ "$QB_NAME" = vm1/root.img ]; then'
            ' qb-volread "$QB_SOURCE" | qb-tarwrite "$QB_NAME" | valve 3000000 | gzip -1c; fi\' list >$OUT'
        )
        running.hold()
        kill(running.one(stage), signal.SIGKILL)
        running.release()
        status, stderr = running.end()
        running.gone()
    at = {"qb-volread": 1, "qb-tarwrite": 2, "valve": 3, "gzip": 4}[stage]
    assert status == 1
    last = stderr.splitlines()[-1]
    assert last == f"qb-seal: error: {MEMBER}: the command stage {at} of 4 was killed by SIGKILL"
    assert not complete(tmp_path / "out", folder)


@pytest.mark.parametrize("stage", ["cat", "qb-unseal"])
def test_a_plain_cat_as_the_command_of_to_command(stage: str, running: Running, folder: Path, tmp_path: Path) -> None:
    """If either of the two dies, cat never sees an EOF that looks like the end of the file."""
    with running:
        running.start(
            "valve 3000000 <by-hand.qb | qb-unseal --to-command 'cat >$OUT.partial && mv $OUT.partial $OUT'",
            pipefail=False,
        )
        running.hold()
        cat = running.one("cat")
        assert (tmp_path / "out.partial").exists()
        kill(cat if stage == "cat" else running.one("qb-unseal"), signal.SIGKILL)
        if stage == "qb-unseal":
            wait_until(lambda: not running.processes("cat"), "the end of cat")
            assert not (tmp_path / "out").exists()
        running.release()
        status, stderr = running.end()
        if stage == "cat":
            assert status == 1
            assert stderr.splitlines()[-1] == f"qb-unseal: error: {MEMBER}: the command was killed by SIGKILL"
        else:
            assert status == 137
        running.gone()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["gzip", "qb-tarextract", "valve", "qb-volwrite", "qb-unseal"])
def test_a_stage_of_to_command(stage: str, running: Running, tmp_path: Path) -> None:
    with running:
        running.start(
            "qb-unseal --to-command 'gzip -dc | qb-tarextract | valve 3000000 | qb-volwrite $OUT' <by-hand.qb",
            pipefail=False,
        )
        running.hold()
        kill(running.one(stage), signal.SIGKILL)
        running.release()
        status, stderr = running.end()
        running.gone()
    if stage == "qb-unseal":
        assert status == 137
    else:
        at = {"gzip": 1, "qb-tarextract": 2, "valve": 3, "qb-volwrite": 4}[stage]
        assert status == 1
        last = stderr.splitlines()[-1]
        assert last == f"qb-unseal: error: {MEMBER}: the command stage {at} of 4 was killed by SIGKILL"
    assert not (tmp_path / "out").exists()


CREATE = "qb-backup create -q --logn 10 --chunk-size 512K -o $OUT vm1:root=root.img"
RESTORE = "qb-backup restore --to $OUT backup.qb"
SHELL = "bash of qb-backup"
CREATES = ["qb-volread", "qb-tarwrite", "qb-compress", "gzip", "qb-seal", "qb-store", "qb-run", SHELL]
RESTORES = ["qb-unseal", "qb-decompress", "gzip", "qb-tarextract", "qb-volwrite", "qb-run", SHELL]


def process(running: Running, stage: str) -> int:
    """The process of a stage; of bin/qb-backup that of the bash that wires the others."""
    return running.one("qb-backup" if stage == SHELL else stage)


ENDS_ALL = ("qb-seal", "qb-unseal", "qb-run", SHELL)
"""With one of them all is at an end, even where nothing flows. Others are missed by their neighbours, who look."""


def dead(running: Running, stage: str) -> None:
    """Kills a stage; soon all processes must have ended. The bash of a CMD prints no line of its own."""
    kill(process(running, stage), signal.SIGKILL)
    if stage not in ENDS_ALL:
        running.release()
    status, said = running.end()
    assert status == (-signal.SIGKILL if stage == "qb-run" else 1)
    if stage not in (*ENDS_ALL, "qb-store"):
        assert all(line.startswith(("qb-", "hint: ")) for line in said.splitlines()), said
    running.gone()


@pytest.mark.parametrize("stage", CREATES)
def test_a_stage_of_qb_backup_create(stage: str, running: Running, tmp_path: Path) -> None:
    running.hold_in(MEMBER, 3000000)
    with running:
        running.start(f"exec {CREATE}")
        running.hold()
        assert (tmp_path / "out.partial").exists()
        dead(running, stage)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.partial").exists() == (stage == "qb-store"), "the next run replaces that"


@pytest.mark.parametrize("stage", RESTORES)
def test_a_stage_of_qb_backup_restore(stage: str, running: Running, tmp_path: Path) -> None:
    running.hold_in(MEMBER, 3000000)
    with running:
        running.start(f"exec {RESTORE}")
        running.hold()
        running.one("qb-volwrite")
        dead(running, stage)
    assert not (tmp_path / "out/vm1/root.img").exists()


@pytest.mark.parametrize("stage", ["qb-unseal", "qb-decompress", "gzip", "qb-tarextract", "qb-run", SHELL])
def test_a_stage_of_qb_backup_verify(stage: str, running: Running) -> None:
    running.hold_in(MEMBER, 3000000)
    with running:
        running.start("exec qb-backup verify backup.qb")
        running.hold()
        dead(running, stage)


@pytest.mark.parametrize("stage", ["qb-unseal", "qb-decompress", "gzip", "qb-tarextract", "qb-run", SHELL])
@pytest.mark.parametrize("command", [RESTORE, "qb-backup list backup.qb"])
def test_while_the_metadata_is_read(command: str, stage: str, running: Running, tmp_path: Path) -> None:
    running.hold_in("qubes.xml", 100)
    with running:
        running.start(f"exec {command}")
        running.hold()
        dead(running, stage)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["qb-seal", "qb-store", "qb-run", SHELL])
def test_while_the_metadata_is_saved(stage: str, running: Running, tmp_path: Path) -> None:
    running.hold_in("qubes.xml", 100)
    with running:
        running.start(f"exec {CREATE}")
        running.hold()
        dead(running, stage)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["qb-unseal", "qb-run", SHELL])
def test_while_the_archive_itself_is_waited_for(stage: str, running: Running, tmp_path: Path) -> None:
    """No data arrives before or after."""
    with running:
        running.start(f"{{ : >reached; exec sleep 1000; }} | exec {RESTORE.removesuffix('backup.qb')}", pipefail=False)
        running.one("qb-unseal")
        kill(process(running, stage), signal.SIGKILL)
        wait_until(lambda: running.processes() and not set(map(tuple, others(running))), "the end of all but sleep")
    assert not (tmp_path / "out").exists()


def others(running: Running) -> list[list[str]]:
    return [found for pid in running.processes() if (found := words(pid)) and found[0] not in ("sleep", "bash")]


def test_a_hanging_stage_does_not_outlive_the_program_that_started_it(running: Running) -> None:
    """qb-seal is killed while a stage in its CMD, with nothing to write, would never notice."""
    running.hold_in(MEMBER, 0)
    with running:
        running.start(f"exec {CREATE}")
        running.hold()
        dead(running, "qb-seal")


@pytest.mark.parametrize("late", [False, True])
def test_nothing_is_lost_if_nothing_fails(late: bool, running: Running, folder: Path, tmp_path: Path) -> None:
    """The runs of these tests succeed if nothing is killed."""
    running.hold_in(MEMBER, 3000000)
    with running:
        running.start(f"exec {RESTORE if late else CREATE}")
        running.hold()
        running.release()
        assert running.end() == (0, "")
        running.gone()
    if late:
        assert (tmp_path / "out/vm1/root.img").read_bytes() == (folder / "root.img").read_bytes()
    else:
        assert complete(tmp_path / "out", folder)
