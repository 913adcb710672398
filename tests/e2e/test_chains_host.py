"""qb-backup restore --host of a full archive and its increments: every state, what fails, stages that are killed."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hostdirs import images, inventory, make_host, not_restored, unfinished
from nights import SECRET, Nights
from running import OF_FILE, Running, kill
from support import bash
from terminal import Terminal

# A night with two machines, one with a third, and one without the first, each with its own state of every volume.
NIGHTS = (("mail", "web"), ("new", "mail", "web"), ("web", "new"))
PIPES = "<(cat 0.qb) 1.qb <(cat 2.qb)"


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    made = Nights(tmp_path_factory.mktemp("nights"))
    for number, names in enumerate(NIGHTS):
        if number == 1:
            made.add("new")
        made.machines["web"].files = {"firewall.xml": f"<night-{number}/>".encode()}
        for at, name in enumerate(names):
            made.change(name, "root", 70_000 * at, f"night {number}".encode())
            made.change(name, "private", 50, f"night {number}".encode())
        made.night(*names)
    return made


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A host without domains."""
    (tmp_path / "B").mkdir()
    return tmp_path / "B"


def restore(nights: Nights, target: Path, text: str) -> subprocess.CompletedProcess[bytes]:
    return bash(f"cd {nights.path} && exec qb-backup restore -qy --host {target} {text}", **SECRET)


def whole(target: Path, state: dict[str, bytes], names: dict[str, str] | None = None) -> None:
    """The host has these images, and their machines are complete. names: new names of machines."""
    given = names or {}
    parts = {name: name.partition("/") for name in state}
    wanted = {f"{given.get(domain, domain)}/{rest}": state[name] for name, (domain, _, rest) in parts.items()}
    assert images(target) == wanted
    assert {*inventory(target)} == {name.partition("/")[0] for name in wanted}
    assert unfinished(target) == set()


def empty(target: Path) -> None:
    """Nothing was created, or everything has been removed."""
    assert not (target / "qubes.xml").exists() or inventory(target) == {}
    assert {path.name for path in target.iterdir()} <= {"qubes.xml", "qubes.xml.lock"}


def test_the_full_archive_alone(nights: Nights, target: Path) -> None:
    done = restore(nights, target, "0.qb")
    assert (done.returncode, done.stdout, done.stderr.decode()) == (0, b"", not_restored("vm2/firewall.xml"))
    whole(target, nights.states[0])


def test_a_state_in_the_middle_under_new_names(nights: Nights, target: Path) -> None:
    words = f"--at {nights.header('1.qb')['id']} --rename web=site --rename new=web"
    done = restore(nights, target, f"{words} 2.qb 1.qb 0.qb")
    assert (done.returncode, done.stderr.decode()) == (0, not_restored("vm2/firewall.xml"))
    whole(target, nights.states[1], {"web": "site", "new": "web"})


def test_some_of_it(nights: Nights, target: Path) -> None:
    """One machine, and one volume of it: the other one stays empty."""
    done = restore(nights, target, "--include web --only web:private 0.qb 1.qb 2.qb")
    assert done.returncode == 0
    assert done.stderr == b"qb-backup: warning: web:root is not among --only: it stays empty\n"
    whole(target, {"web/root.img": b"", "web/private.img": nights.states[2]["web/private.img"]})


def test_a_plan(nights: Nights, target: Path, tmp_path: Path) -> None:
    done = restore(nights, target, f"--dry-run 0.qb 1.qb 2.qb >{tmp_path}/plan")
    assert (done.returncode, done.stderr) == (0, b"")
    empty(target)
    text = (tmp_path / "plan").read_text()
    (tmp_path / "plan").write_text(text.replace("create\tnew\tnew", "skip\tnew\tnew"))
    done = restore(nights, target, f"--plan {tmp_path}/plan 0.qb 1.qb 2.qb")
    assert (done.returncode, done.stderr.decode()) == (0, not_restored("vm2/firewall.xml"))
    whole(target, {name: data for name, data in nights.states[2].items() if name.startswith("web/")})


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_the_question(nights: Nights, target: Path, answer: str) -> None:
    """The other archives wait for the answer."""
    words = ("--host", target, "--include", "new")
    files = [nights.path / name for name in ("2.qb", "0.qb", "1.qb")]
    with Terminal("qb-backup", "restore", *words, *files, **SECRET) as tty:
        tty.expect(b"Restore this? [y/N] ")
        tty.type(answer.encode() + b"\n")
        done = tty.finish()
    assert done.returncode == (0 if answer == "yes" else 1), done.stderr
    new = {name: data for name, data in nights.states[2].items() if name.startswith("new/")}
    whole(target, new) if answer == "yes" else empty(target)


@pytest.mark.parametrize("files", ["1.qb 2.qb 0.qb", PIPES])
def test_all_of_it_and_a_report(nights: Nights, target: Path, tmp_path: Path, files: str) -> None:
    """Further files are those of the last archive."""
    (tmp_path / "files").mkdir()
    done = restore(nights, target, f"--json --files-to {tmp_path}/files {files}")
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    assert (tmp_path / "files/web/firewall.xml").read_text() == "<night-2/>"
    whole(target, nights.states[2])
    found = json.loads(done.stdout)
    assert [(one["name"], one["bytes"], one["problem"]) for one in found["domains"]] == [
        ("web", 2 << 20, None),
        ("new", 2 << 20, None),
    ]


@pytest.mark.parametrize(
    ("files", "status", "message"),
    [
        ("0.qb 2.qb", 4, "the backup {1} is missing: it is the base of 2.qb"),
        ("1.qb 2.qb", 4, "the backup {0} is missing: it is the base of 1.qb"),
        ("0.qb 1.qb 1.qb", 4, "1.qb and 1.qb are both the backup {1}"),
        ("2.qb", 5, "the archive holds increments of the backup {1}"),
        ("--at x 0.qb 1.qb", 2, "--at: none of the archives has the backup ID x"),
        ("--at {0} 0.qb", 2, "--at needs several archives"),
    ],
)
def test_a_chain_that_is_not_whole(nights: Nights, target: Path, files: str, status: int, message: str) -> None:
    """Nothing is made."""
    ids = [nights.header(f"{number}.qb")["id"] for number in range(3)]
    done = restore(nights, target, files.format(*ids))
    assert done.returncode == status
    assert f": error: {message.format(*ids)}" in done.stderr.decode().splitlines()[0]
    assert list(target.iterdir()) == []


def test_a_report_of_a_chain_that_is_not_whole(nights: Nights, target: Path) -> None:
    done = restore(nights, target, "--json 0.qb 2.qb")
    found = json.loads(done.stdout)
    assert (done.returncode, found.pop("error") in done.stderr.decode()) == (4, True)
    assert found == {"status": 4, "domains": [], "left_out": []}


def damaged(nights: Nights, tmp_path: Path, file: str, name: str) -> str:
    """A copy of the archive in which a byte of that file is another one."""
    data = bytearray((nights.path / file).read_bytes())
    data[data.index(f"{name}.000.enc".encode()) + 512 + 300] ^= 1
    (tmp_path / "bad.qb").write_bytes(data)
    return str(tmp_path / "bad.qb")


@pytest.mark.parametrize(("number", "words"), [(0, ""), (1, "--verify-only"), (2, "")])
def test_damage_in_any_archive(nights: Nights, target: Path, tmp_path: Path, number: int, words: str) -> None:
    files = [f"{at}.qb" for at in range(3)]
    files[number] = damaged(nights, tmp_path, files[number], "vm2/private.img")
    done = restore(nights, target, f"--include web {words} {' '.join(files)}")
    assert done.returncode == 4
    assert "does not authenticate: the archive is damaged here" in done.stderr.decode()
    empty(target)


@pytest.mark.parametrize("files", ["0.qb 1.qb 2.qb", PIPES])
def test_verify_only_makes_nothing(nights: Nights, target: Path, files: str) -> None:
    done = restore(nights, target, f"--verify-only --json {files}")
    assert (done.returncode, done.stderr.decode()) == (0, not_restored("vm2/firewall.xml"))
    assert [one["bytes"] for one in json.loads(done.stdout)["domains"]] == [2 << 20, 2 << 20]
    assert list(target.iterdir()) == []


@pytest.mark.parametrize(("archive", "left"), [("merge", {"new"}), ("part", set())])
def test_going_on_without_a_volume(nights: Nights, target: Path, tmp_path: Path, archive: str, left: set[str]) -> None:
    """A volume that fails costs its machine only. But if an older archive fails, there is nothing to go on with."""
    (tmp_path / "run").mkdir()
    broken = f'[ "$QB_NAME" != vm2/private.img ] || ! grep -qzE "^QB_TARGET=.*{archive}:" /proc/$PPID/environ || exit 1'
    with Running(tmp_path / "run", nights.path, **SECRET) as running:
        running.program("igzip", f'{OF_FILE}{broken}\nexec gzip "$@"\n')
        running.start(f"exec qb-backup restore -qy --keep-going --host {target} 0.qb 1.qb 2.qb")
        status, said = running.end()
    assert status == 4, said
    whole(target, {name: data for name, data in nights.states[2].items() if name.partition("/")[0] in left})


@pytest.mark.parametrize("program", ["qb-unseal", "qb-decompress", "qb-merge", "qb-volwrite"])
def test_a_stage_that_is_killed(nights: Nights, tmp_path: Path, program: str) -> None:
    """Of a lower archive, where it has that stage. No domain is left."""
    target = make_host(tmp_path / "B", [nights.machines["mail"]])
    words = f"--host {target} --no-rename --include web"
    status, said = killed_in_the_middle(nights, tmp_path / "run", words, lambda running: lower(running, program))
    assert status == 1, said
    assert {*inventory(target)} == {"mail"}
    assert said.count(": error: ") <= 1
    assert images(target) == {name: data for name, data in nights.states[1].items() if name.startswith("mail/")}


def test_the_run_itself_is_killed(nights: Nights, tmp_path: Path) -> None:
    """No stage waits for another one forever, and the next run replaces the domains that are left."""
    target = make_host(tmp_path / "B", [nights.machines["mail"]])
    killed_in_the_middle(nights, tmp_path / "run", f"--host {target}", lambda running: running.one("qb-run"))
    assert {*inventory(target)} == {"mail", "web", "new"}
    assert unfinished(target) == {"web", "new"}
    done = restore(nights, target, "--no-rename 0.qb 1.qb 2.qb")
    assert (done.returncode, done.stderr.decode()) == (0, not_restored("vm2/firewall.xml"))
    mail = {name: data for name, data in nights.states[1].items() if name.startswith("mail/")}
    whole(target, {**nights.states[2], **mail})


def killed_in_the_middle(nights: Nights, place: Path, words: str, victim: Callable[[Running], int]) -> tuple[int, str]:
    """Restores all archives, and kills a process in the middle. How it ended; nothing of it runs then."""
    place.mkdir()
    with Running(place, nights.path, **SECRET) as running:
        running.hold_in("vm2/root.img", 2000)
        running.start(f"exec qb-backup restore -qy {words} 0.qb 1.qb 2.qb")
        running.hold()
        kill(victim(running), signal.SIGKILL)
        for _archive in range(3):
            running.release()
        ended = running.end()
        running.gone()
    return ended


def lower(running: Running, program: str) -> int:
    """A process of the program; one that does not open the last archive, if there is one."""
    found = running.some(program)
    below = [pid for pid in found if "--first" not in Path(f"/proc/{pid}/cmdline").read_text().split("\0")]
    return (below or found)[0]
