"""qb-backup: its options and messages, what it leaves behind, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from running import OF_FILE, Running, wait_until
from support import bash, environment, run
from terminal import Terminal
from volumefiles import filled, same

ID = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{16}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes, a passphrase, and an archive of two machines."""
    place = tmp_path_factory.mktemp("backup")
    filled(place / "root.img", 300_000)
    filled(place / "private.img", 100_000)
    (place / "passphrase").write_text("backup\n")
    (place / "passphrase").chmod(0o600)
    made = backup(place, "create", *QUICK, "-q", "-o", "two.qb", "--id-file", "two.id", *TWO)
    assert (made.returncode, made.stderr) == (0, "")
    return place


QUICK = ("--logn", "10")
TWO = ("work:root=root.img", "work:private=private.img", "bank:root=private.img")
LISTED = """\
work\tStandaloneVM\troot\tvm1/root.img\t300000
work\tStandaloneVM\tprivate\tvm1/private.img\t100000
bank\tStandaloneVM\troot\tvm2/root.img\t100000
"""


def backup(folder: Path, *words: str | Path, data: bytes = b"", **changes: str) -> subprocess.CompletedProcess[str]:
    """qb-backup with the passphrase, in folder."""
    done = subprocess.run(
        ["qb-backup", *map(str, words)],
        input=data,
        capture_output=True,
        cwd=folder,
        env=environment(QB_PASSPHRASE_FILE=str(folder / "passphrase"), **changes),
        start_new_session=True,
        check=False,
    )
    return subprocess.CompletedProcess([], done.returncode, done.stdout.decode("latin-1"), done.stderr.decode())


def outcome(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


# Replaces the compressor and the decompressor: stops in the middle of a volume.
HELD = OF_FILE + 'if [ "$QB_NAME" = vm1/root.img ]; then gzip "$@" | valve 1; else exec gzip "$@"; fi\n'


def files(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*") if not path.is_dir()}


# --- create ---


def test_to_a_file(folder: Path, tmp_path: Path) -> None:
    """Its name appears at the end; the backup ID is printed on stderr and written to a file."""
    done = backup(folder, "create", *QUICK, "-o", tmp_path / "a.qb", "--id-file", tmp_path / "a.id", "root.img")
    backup_id = (tmp_path / "a.id").read_text().strip()
    assert ID.fullmatch(backup_id)
    assert outcome(done) == (0, "", f"qb-backup: backup ID {backup_id}\n")
    assert files(tmp_path) == {"a.qb", "a.id"}
    assert outcome(backup(folder, "verify", "--expect-id", backup_id, tmp_path / "a.qb")) == (0, "", "")


def test_to_standard_output(folder: Path, tmp_path: Path) -> None:
    done = backup(folder, "create", *QUICK, "--quiet", "root.img")
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "a.qb").write_bytes(done.stdout.encode("latin-1"))
    assert outcome(backup(folder, "verify", tmp_path / "a.qb")) == (0, "", "")


def test_the_order_of_an_archive(folder: Path) -> None:
    members = bash(f"tar -tf {folder}/two.qb").stdout.decode().split()
    assert members == [
        "backup-header",
        "backup-header.hmac",
        "qubes.xml.000.enc",
        "vm1/root.img.000.enc",
        "vm1/private.img.000.enc",
        "vm2/root.img.000.enc",
        "qb-manifest.000.enc",
    ]


def test_volumes_of_one_machine_are_put_together(folder: Path, tmp_path: Path) -> None:
    words = ("work:root=root.img", "bank:root=private.img", "work:private=private.img")
    assert outcome(backup(folder, "create", *QUICK, "-q", "-o", tmp_path / "a.qb", *words)) == (0, "", "")
    assert outcome(backup(folder, "list", tmp_path / "a.qb")) == (0, LISTED, "")
    assert outcome(backup(folder, "verify", tmp_path / "a.qb")) == (0, "", "")


def test_what_exists_is_refused_and_stays(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.qb").write_bytes(b"before")
    done = backup(folder, "create", *QUICK, "-q", "-o", tmp_path / "a.qb", "root.img")
    assert outcome(done) == (5, "", f"qb-backup: error: {tmp_path}/a.qb already exists\n")
    assert files(tmp_path) == {"a.qb"}
    assert (tmp_path / "a.qb").read_bytes() == b"before"


def test_a_name_that_is_taken_meanwhile_is_not_taken_away(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with Running(tmp_path / "run", folder, QB_PASSPHRASE_FILE="passphrase") as running:
        running.program("igzip", HELD)
        running.start(f"qb-backup create --logn 10 -q -o {tmp_path}/a.qb root.img")
        running.hold()
        (tmp_path / "a.qb").write_bytes(b"somebody else's")
        running.release()
        assert running.end() == (
            5,
            f"qb-store: error: {tmp_path}/a.qb already exists: another program created it meanwhile\n",
        )
    assert (tmp_path / "a.qb").read_bytes() == b"somebody else's"
    assert not (tmp_path / "a.qb.partial").exists()


def test_what_a_run_that_was_killed_has_left_is_written_over(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.qb.partial").write_bytes(bytes(10_000_000))
    assert outcome(backup(folder, "create", *QUICK, "-q", "-o", tmp_path / "a.qb", "root.img")) == (0, "", "")
    assert files(tmp_path) == {"a.qb"}
    assert outcome(backup(folder, "verify", tmp_path / "a.qb")) == (0, "", "")


def test_two_runs_that_write_the_same_file(folder: Path, tmp_path: Path) -> None:
    """The second is refused while the first one writes, and does not harm it."""
    (tmp_path / "run").mkdir()
    with Running(tmp_path / "run", folder, QB_PASSPHRASE_FILE="passphrase") as running:
        running.program("igzip", HELD)
        running.start(f"qb-backup create --logn 10 -q -o {tmp_path}/a.qb root.img")
        running.hold()
        done = backup(folder, "create", *QUICK, "-q", "-o", tmp_path / "a.qb", "private.img")
        assert outcome(done) == (5, "", f"qb-backup: error: another run is writing {tmp_path}/a.qb.partial\n")
        assert (tmp_path / "a.qb.partial").exists()
        running.release()
        assert running.end() == (0, "")
    assert backup(folder, "list", tmp_path / "a.qb").stdout.endswith("\t300000\n")
    assert outcome(backup(folder, "verify", tmp_path / "a.qb")) == (0, "", "")


def test_names_with_odd_characters(folder: Path, tmp_path: Path) -> None:
    odd = ["with spaces", "-rf", "$(touch witness)", "ä\udcff*?", "semi;colon&", "quote'\"", "a=b:c"]
    sources = [f"{name}.img" for name in odd]
    for name in sources:
        filled(tmp_path / name, 1000)
    volumes = [f"vm{number}:root={name}" for number, name in enumerate(sources)]
    secret = ("--passphrase-file", folder / "passphrase")
    done = backup(tmp_path, "create", *QUICK, "-q", *secret, *volumes)
    assert (done.returncode, done.stderr) == (0, "")
    to = f"to {' '.join(odd)}"
    restored = backup(tmp_path, "restore", "--to", to, *secret, data=done.stdout.encode("latin-1"))
    assert outcome(restored) == (0, "", "")
    assert files(tmp_path) == {*sources, *(f"{to}/vm{number}/root.img" for number in range(len(odd)))}
    for number, name in enumerate(sources):
        assert same(tmp_path / name, tmp_path / f"{to}/vm{number}/root.img")


def test_a_bare_path(folder: Path, tmp_path: Path) -> None:
    """The domain is its name without suffix, also after -- and with several dots; existing files are always paths."""
    for name in ("-x.img", "vm.tar.img", "a:b=c"):
        filled(tmp_path / name, 10)
    done = backup(tmp_path, "create", *QUICK, "-q", "--passphrase-file", folder / "passphrase", "vm.tar.img")
    assert done.returncode == 0
    listed = backup(folder, "list", data=done.stdout.encode("latin-1"))
    assert listed.stdout == "vm\tStandaloneVM\troot\tvm1/root.img\t10\n"
    for word in ("a:b=c", "-x.img"):
        done = backup(tmp_path, "create", *QUICK, "-q", "--passphrase-file", folder / "passphrase", "--", word)
        domain = "-x" if word == "-x.img" else "b=c"
        assert outcome(done) == (
            2,
            "",
            f"qb-backup: error: cannot save {word} as the domain {domain}: a domain's name has 1 to 31 letters, digits,"
            " _, . and -, and begins with a letter\nhint: write DOMAIN:VOLUME=SOURCE\n",
        )


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("none.img",), 1, "qb-backup: error: cannot open none.img: No such file or directory"),
        (("vm:root=none.img",), 1, "qb-backup: error: cannot open none.img: No such file or directory"),
        (("vm:root=",), 2, "qb-backup: error: a volume has no name"),
        ((".",), 2, "qb-backup: error: . is a directory, not a file or a block device"),
        (("vm:root=/dev/null",), 2, "qb-backup: error: /dev/null is a character device"),
        (("vm:root=root.img", "vm:root=root.img"), 2, "qb-backup: error: vm:root is given twice"),
        (
            ("1vm:root=root.img",),
            2,
            "qb-backup: error: cannot save 1vm:root=root.img as the domain 1vm: a domain's name",
        ),
        (("vm:ro/ot=root.img",), 2, "qb-backup: error: vm:ro/ot=root.img: unknown kind of volume: vm"),
        (("vm:../x=root.img",), 2, "qb-backup: error: vm:../x=root.img: unknown kind of volume: vm"),
        (("vm:-x=root.img",), 2, "qb-backup: error: cannot save a volume as -x: a volume's name"),
        (("vm:root=root.img\n",), 2, "qb-backup: error: a VOLUME has a newline in its name"),
        ((), 2, "no volume given"),
        (("--compress", "rar", "root.img"), 2, "--compress: must be one of gzip, bzip2, xz, zstd, none"),
        (("--logn", "11", "root.img"), 2, "--logn is given twice"),
        (("--chunk-size", "0", "root.img"), 2, "--chunk-size: must be between 1 and"),
        (("--jobs", "0", "root.img"), 2, "--jobs: must be a number between 1 and"),
        (("--id-file", "none/id", "root.img"), 1, "cannot write none/id"),
    ],
)
def test_arguments_that_create_refuses(
    words: tuple[str, ...], status: int, message: str, folder: Path, tmp_path: Path
) -> None:
    done = backup(folder, "create", *QUICK, "-o", tmp_path / "a.qb", *words)
    assert (done.returncode, done.stdout) == (status, "")
    said = [line for line in done.stderr.splitlines() if ": backup ID " not in line]
    assert message in said[0]
    assert [line.partition(": ")[0] for line in said[1:]] in ([], ["hint"])
    assert files(tmp_path) == set()


def test_a_directory_that_is_not_there(folder: Path) -> None:
    done = backup(folder, "create", *QUICK, "-q", "-o", "none/a.qb", "root.img")
    assert outcome(done) == (1, "", "qb-backup: error: cannot write to none/a.qb.partial: No such file or directory\n")


@pytest.mark.parametrize("size", [0, 299_999, 300_001, 10_000_000])
def test_a_volume_that_changes_its_size_meanwhile(size: int, folder: Path, tmp_path: Path) -> None:
    """After its size was written to the metadata and before it is read: verify and Qubes would refuse it."""
    filled(tmp_path / "volume", 300_000)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "igzip").write_text(
        f'{OF_FILE}[ "$QB_NAME" != qubes.xml ] || truncate -s {size} {tmp_path}/volume\nexec gzip "$@"\n'
    )
    (programs / "igzip").chmod(0o755)
    path = f"{programs}:{environment()['PATH']}"
    words = ("-q", "-o", tmp_path / "a.qb", f"vm:root={tmp_path}/volume")
    done = backup(folder, "create", *QUICK, *words, PATH=path)
    assert outcome(done) == (4, "", f"qb-tarwrite: error: the volume has {size} bytes, not 300000\n")
    assert files(tmp_path) == {"volume", "programs/igzip"}


# --- the passphrase ---


def test_a_passphrase_on_standard_input(folder: Path, tmp_path: Path) -> None:
    """The archive and the list of volumes then use other descriptors."""
    words = ("--passphrase-fd", "0")
    done = run(
        "qb-backup", "create", *QUICK, "-q", *words, "-o", tmp_path / "a.qb", folder / "root.img", data=b"backup"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    for command in ("list", "verify", "restore"):
        more = ("--to", tmp_path / "to") if command == "restore" else ()
        done = run("qb-backup", command, *words, *more, tmp_path / "a.qb", data=b"backup\n")
        assert (done.returncode, done.stderr) == (0, b"")
    assert same(folder / "root.img", tmp_path / "to/root/root.img")
    done = run("qb-backup", "list", *words, data=b"backup\n")
    assert done.returncode == 2
    assert b"--passphrase-fd: standard input is taken" in done.stderr


def test_one_question_for_a_whole_run(folder: Path, tmp_path: Path) -> None:
    volumes = " ".join(TWO)
    text = f"cd {folder} && qb-backup create --logn 10 -q -o {tmp_path}/a.qb {volumes}"
    with Terminal("bash", "-c", text) as tty:
        for prompt in (b"passphrase: ", b"passphrase again: "):
            tty.expect(prompt)
            tty.type(b"typed\n")
        assert tty.finish().returncode == 0
        assert tty.said.count(b"passphrase") == 2
    with Terminal("qb-backup", "restore", "--to", f"{tmp_path}/to", f"{tmp_path}/a.qb") as tty:
        tty.expect(b"passphrase: ")
        tty.type(b"typed\n")
        assert tty.finish().returncode == 0
        assert tty.said.count(b"passphrase") == 1
    assert files(tmp_path) == {"a.qb", "to/work/root.img", "to/work/private.img", "to/bank/root.img"}


# --- list, verify, restore ---


@pytest.mark.parametrize(
    ("command", "how"),
    [
        ("list", "file"),
        ("list", "fifo"),
        ("verify", "fifo"),
        ("restore", "file"),
        ("restore", "standard input"),
        ("restore", "-"),
        ("restore", "fifo"),
    ],
)
def test_from_any_source(command: str, how: str, folder: Path, tmp_path: Path) -> None:
    """In one pass: the archive need not be readable twice."""
    text = f"qb-backup {command} " + (f"--to {tmp_path}/to " if command == "restore" else "")
    text += {"file": "two.qb", "standard input": "<two.qb", "-": "- < <(cat two.qb)", "fifo": "fifo"}[how]
    if how == "fifo":
        text = f"rm -f fifo && mkfifo fifo && {{ cat two.qb >fifo & {text}; }}"
    done = bash(f"cd {folder} && {text}", QB_PASSPHRASE_FILE="passphrase")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == (LISTED if command == "list" else "")
    if command == "restore":
        assert files(tmp_path / "to") == {"work/root.img", "work/private.img", "bank/root.img"}
        assert same(folder / "root.img", tmp_path / "to/work/root.img")
        assert same(folder / "private.img", tmp_path / "to/bank/root.img")


MADE = r"made 20[0-9]{2}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} UTC"


def test_list_as_json(folder: Path) -> None:
    done = backup(folder, "list", "--json", "two.qb")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert [domain["name"] for domain in document["domains"]] == ["work", "bank"]
    assert re.fullmatch("[0-9T]+-[0-9a-f]{16}", document["backup_id"]) and document["version"] == 4


def test_list_names_the_backup_and_its_date(folder: Path) -> None:
    done = backup(folder, "list", "-v", "two.qb")
    assert (done.returncode, done.stdout) == (0, LISTED)
    assert re.search(rf"^qb-backup: backup ID [0-9T]+-[0-9a-f]{{16}}, {MADE}, version 4$", done.stderr, re.MULTILINE)


def test_verify_ends_with_one_line_if_wanted(folder: Path) -> None:
    done = backup(folder, "verify", "-v", "two.qb")
    assert done.returncode == 0
    line = rf"qb-backup: two\.qb: 3 files, [0-9.]+ [KM]iB, {MADE}, complete"
    assert re.fullmatch(line, done.stderr.splitlines()[-1])
    assert backup(folder, "verify", "two.qb").stderr == ""


def test_on_a_terminal_people_read(folder: Path) -> None:
    """A table with sizes for people, and how verify went; -q hides that."""
    text = f"cd {folder} && export QB_PASSPHRASE_FILE=passphrase; exec >/dev/tty 2>&1; "
    text += "qb-backup list two.qb; qb-backup verify -q two.qb; echo --; qb-backup verify two.qb"
    with Terminal("bash", "-c", text) as terminal:
        terminal.finish()
        listed, _, verified = terminal.said.decode().replace("\r\n", "\n").replace("\r\033[K", "\n").partition("--\n")
    assert re.search(r"^domain +class +volume +size +name in the archive\n", listed, re.MULTILINE)
    assert re.search(r"^work +StandaloneVM +root +[0-9.]+ [KM]iB +vm1/root.img$", listed, re.MULTILINE)
    assert "complete" not in listed
    assert re.search(rf"^qb-backup: two.qb: 3 files, .*, {MADE}, complete$", verified, re.MULTILINE)


def test_only_some_machines(folder: Path, tmp_path: Path) -> None:
    assert outcome(backup(folder, "restore", "--to", tmp_path, "--only", "bank", "two.qb")) == (0, "", "")
    assert files(tmp_path) == {"bank/root.img"}
    words = ("--only", "work", "--only=bank", "--overwrite")
    assert outcome(backup(folder, "restore", "--to", tmp_path, *words, "two.qb")) == (0, "", "")
    assert files(tmp_path) == {"bank/root.img", "work/root.img", "work/private.img"}


def test_a_machine_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    done = backup(folder, "restore", "--to", tmp_path / "to", "--only", "bank", "--only", "nobody", "two.qb")
    assert outcome(done) == (2, "", f"qb-backup: error: the archive has no domain nobody\n{SHOWS}")
    assert files(tmp_path) == set()
    done = backup(folder, "restore", "--to", tmp_path / "to", "--only", "../x", "two.qb")
    message = "--only: ../x: a domain's name has 1 to 31 letters, digits, _, . and -, and begins with a letter"
    assert outcome(done) == (2, "", f"qb-backup: error: {message}\n")


def test_what_is_there_is_not_touched_without_overwrite(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bank").mkdir()
    (tmp_path / "bank/root.img").write_bytes(b"before")
    done = backup(folder, "restore", "--to", tmp_path, "--only", "bank", "two.qb")
    message = f"qb-backup: error: {tmp_path}/bank/root.img already exists\nhint: --overwrite replaces it\n"
    assert outcome(done) == (5, "", message)
    assert (tmp_path / "bank/root.img").read_bytes() == b"before"
    assert outcome(backup(folder, "restore", "--to", tmp_path, "--overwrite", "--only", "bank", "two.qb")) == (
        0,
        "",
        "",
    )
    assert same(folder / "private.img", tmp_path / "bank/root.img")


@pytest.mark.parametrize("command", ["list", "verify", "restore"])
def test_what_is_expected(command: str, folder: Path, tmp_path: Path) -> None:
    backup_id = (folder / "two.id").read_text().strip()
    more = ("--to", tmp_path / "to") if command == "restore" else ()
    good = ("--expect-id", backup_id, "--require-version", "4")
    assert backup(folder, command, *good, *more, "two.qb").returncode == 0
    wrong = backup_id[:-1] + ("0" if backup_id[-1] != "0" else "1")
    done = backup(folder, command, "--expect-id", wrong, *more, "two.qb")
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr == f"qb-unseal: error: the archive has the backup ID {backup_id}, not {wrong}\n"


def test_limits(folder: Path) -> None:
    for words in (("--max-memory", "1M"), ("--max-work", "10")):
        assert backup(folder, "list", *words, "two.qb").returncode == 5


SHOWS = "hint: qb-backup list shows what it has\n"

SPOILT = {
    "empty": lambda data: b"",
    "something else": lambda data: b"no archive\n" * 1000,
    "no manifest": lambda data: data[:-2000],
    "half": lambda data: data[: len(data) // 2],
    "more behind it": lambda data: data + b"more",
    "a bit": lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:],
}


# One stage finds it for verify and restore.
@pytest.mark.parametrize(
    ("spoilt", "command"),
    [
        *((spoilt, command) for spoilt in SPOILT for command in ("list", "restore")),
        *(("half", "verify"), ("more behind it", "verify"), ("a bit", "verify")),
    ],
)
def test_what_is_wrong_with_an_archive(spoilt: str, command: str, folder: Path, tmp_path: Path) -> None:
    data = SPOILT[spoilt]((folder / "two.qb").read_bytes())
    more = ("--to", tmp_path / "to") if command == "restore" else ()
    done = backup(folder, command, *more, data=data)
    if (spoilt, command) == ("a bit", "list"):  # in a volume, which list does not open
        assert outcome(done) == (0, LISTED, "")
        return
    assert done.returncode == 4
    assert re.fullmatch("qb-unseal: error: [^\n]*\n(hint: [^\n]*\n)?", done.stderr)
    assert not [name for name in files(tmp_path) if ".qb-" in name or "partial" in name]


def by_hand(folder: Path, cmd: str, *names: str) -> bytes:
    """An archive whose metadata has one volume, vm1/root.img of 300,000 bytes; cmd prints the files."""
    listed = "".join(f"{name}\\t-\\n" for name in names) + "end\\n"
    made = bash(
        f"cd {folder} && printf 'vm\\troot\\t300000\\n' | qb-meta create >meta.xml && printf '{listed}' |"
        ' qb-seal --opaque --logn 10 --from-command \'if [ "$QB_NAME" = qubes.xml ];'
        f" then qb-tarwrite --raw qubes.xml <meta.xml | gzip -c; else {cmd}; fi' -",
        QB_PASSPHRASE_FILE="passphrase",
    )
    assert (made.returncode, made.stderr) == (0, b"")
    return made.stdout


def opening(tmp_path: Path) -> dict[str, tuple[str | Path, ...]]:
    """The commands that open everything, each with its further words."""
    return {"verify": (), "restore": ("--to", tmp_path)}


GOOD = 'qb-volread root.img | qb-tarwrite "$QB_NAME" | gzip -c'


@pytest.mark.parametrize(
    ("cmd", "message"),
    [
        ("printf no | gzip -c", "qb-unseal: error: vm1/root.img: qb-tarextract: standard input ends too early"),
        (
            GOOD.replace("| gzip", "| head -c -1024 | gzip"),
            "qb-unseal: error: vm1/root.img: qb-tarextract: standard input ends too early",
        ),
    ],
)
def test_what_is_authentic_but_no_volume(cmd: str, message: str, folder: Path, tmp_path: Path) -> None:
    """qb-unseal alone would not notice. More of it is in test_statuses.py and test_damage.py."""
    data = by_hand(folder, cmd, "qubes.xml", "vm1/root.img")
    assert bash(f"qb-unseal --verify --passphrase-file {folder}/passphrase", data=data).returncode == 0
    for command, more in opening(tmp_path).items():
        done = backup(folder, command, *more, data=data)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1), done.stderr
        assert done.stderr == message + "\n"
        assert files(tmp_path) == set()


def test_a_volume_that_the_metadata_does_not_know(folder: Path, tmp_path: Path) -> None:
    data = by_hand(folder, GOOD, "qubes.xml", "vm1/root.img", "vm9/root.img")
    for command, more in opening(tmp_path).items():
        done = backup(folder, command, *more, data=data)
        assert outcome(done) == (4, "", "qb-backup: error: vm9/root.img belongs to no saved domain\n")


def test_a_volume_that_the_metadata_misses(folder: Path, tmp_path: Path) -> None:
    data = by_hand(folder, GOOD, "qubes.xml")
    messages = {
        "verify": "qb-backup: error: vm1/root.img of vm is not in the archive\n",
        "restore": "qb-unseal: error: vm1/root.img is not in the archive\nhint: qb-unseal --list says what is\n",
    }
    for command, more in opening(tmp_path).items():
        assert outcome(backup(folder, command, *more, data=data)) == (4, "", messages[command])


def test_an_archive_without_metadata(folder: Path, tmp_path: Path) -> None:
    """An archive that was made by hand: the files keep their names, and there is nothing to list."""
    data = by_hand(folder, GOOD, "vm7/root.img", "vm7/x.img")
    message = "qb-backup: error: the archive has no qubes.xml: it begins with vm7/root.img\n"
    listed = backup(folder, "list", data=data)
    assert outcome(listed) == (4, "", message + "hint: qb-unseal --list shows its files\n")
    for command, more in opening(tmp_path).items():
        done = backup(folder, command, *more, data=data)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert files(tmp_path) == {"vm7/root.img", "vm7/x.img"}
    assert same(folder / "root.img", tmp_path / "vm7/x.img")


def test_all_targets_of_an_archive_without_metadata_are_looked_at_first(folder: Path, tmp_path: Path) -> None:
    """A stream shows only the first name."""
    data = by_hand(folder, GOOD, "vm7/root.img", "vm7/x.img")
    (tmp_path / "a.qb").write_bytes(data)
    (tmp_path / "to/vm7").mkdir(parents=True)
    for taken, among in (("x.img", set()), ("x.img", {"vm7/root.img"}), ("root.img", set())):
        (tmp_path / "to/vm7" / taken).write_bytes(b"mine")
        words = ("restore", "--to", tmp_path / "to")
        done = backup(folder, *words, data=data) if among else backup(folder, *words, tmp_path / "a.qb")
        assert done.returncode == 5 and f"to/vm7/{taken} already exists\n" in done.stderr
        assert files(tmp_path / "to") == {f"vm7/{taken}", *among}
        (tmp_path / "to/vm7" / taken).unlink()
        (tmp_path / "to/vm7/root.img").unlink(missing_ok=True)
    (tmp_path / "a.qb").write_bytes(data[:-1536])
    assert backup(folder, "restore", "--to", tmp_path / "to", tmp_path / "a.qb").returncode == 4


@pytest.mark.parametrize("command", ["verify", "restore"])
def test_sigusr1_shows_how_far_it_is(command: str, folder: Path, tmp_path: Path) -> None:
    with Running(tmp_path, folder, QB_PASSPHRASE_FILE="passphrase") as running:
        running.program("igzip", HELD.replace("valve 1;", "valve 1000;"))
        process = running.start(f"exec qb-backup {command} {'--to to ' if command == 'restore' else ''}two.qb")
        running.hold()
        process.send_signal(signal.SIGUSR1)
        assert process.stderr is not None
        line = os.read(process.stderr.fileno(), 4096)
        assert line.count(b"\n") == 1 and b"%" in line
        running.release()
        assert running.end()[0] == 0


def test_one_progress_line(folder: Path, tmp_path: Path) -> None:
    """One program shows it for the complete run, although every stage could."""
    done = backup(folder, "create", *QUICK, "-q", "--progress", "-o", tmp_path / "a.qb", *TWO)
    assert done.returncode == 0
    done = backup(folder, "verify", "--progress", tmp_path / "a.qb")
    assert done.returncode == 0
    shown = "".join(line for line in done.stderr.splitlines(True) if not line.startswith("hint: "))
    assert shown.count("\n") == 1
    assert re.search(r"[a-z0-9]+:[a-z]+: +100%", shown), "it says domain and volume, and how far it is"


# --- usage ---


@pytest.mark.parametrize("command", ["create", "list", "verify", "restore"])
def test_help_of_a_command(command: str) -> None:
    """Its usage and its options, and no others."""
    text = run("qb-backup", "help", command).stdout.decode()
    assert text.startswith(f"Usage:\n  qb-backup {command} [options]") and f"\n{command} " in text
    assert run("qb-backup", command, "--help").stdout.decode() == text
    assert ("--output" in text) == (command == "create")
    assert ("--expect-id" in text) == (command != "create")
    assert ("--yes" in text) == (command == "restore")
    assert "--passphrase-file FILE" in text and all(len(line) <= 88 for line in text.splitlines())


def test_help_of_all_and_of_none() -> None:
    done = run("qb-backup", "help")
    assert (done.returncode, done.stdout) == (0, run("qb-backup", "--help").stdout)
    done = run("qb-backup", "help", "save")
    assert (done.returncode, done.stdout) == (2, b"")
    error = b"qb-backup: error: unknown command: save; the commands are create, list, verify, restore, merge\n"
    assert done.stderr == error + b"hint: see qb-backup --help\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no command given: create, list, verify, restore, merge, help"),
        (("save",), "unknown command: save; the commands are create, list, verify, restore, merge, help"),
        (("--progress",), "no command given: create, list, verify, restore, merge, help"),
        (("create", "--none"), "unknown option: --none"),
        (("create", "-z"), "unknown option: -z"),
        (("create", "--log", "10"), "unknown option: --log"),
        (("create", "-o"), "-o needs a value"),
        (("create", "-o", "", "root.img"), "--output: the name is empty"),
        (("create", "--quiet=1", "root.img"), "--quiet takes no value"),
        (("restore", "two.qb"), "no target given: --to, --pool or --map is missing"),
        (("verify", "--only", "vm"), "--only does not go with the other arguments"),
        (("verify", "--json"), "--json does not go with verify"),
        (("list", "-oa"), "--output does not go with list"),
        (("create", "--to", "x", "root.img"), "--to does not go with create"),
        (("create", "--expect-id=x", "root.img"), "--expect-id does not go with create"),
        (("restore", "--logn", "10", "--to", "x"), "--logn does not go with restore"),
    ],
)
def test_usage(words: tuple[str, ...], message: str, folder: Path) -> None:
    done = backup(folder, *words)
    assert outcome(done) == (2, "", f"qb-backup: error: {message}\nhint: see qb-backup --help\n")


def test_options_in_every_spelling(folder: Path, tmp_path: Path) -> None:
    for at, words in enumerate((("-qo", "{}"), ("-q", "--output={}"))):
        target = f"{tmp_path}/{at}.qb"
        spelt = [word.format(target) for word in words]
        assert outcome(backup(folder, "create", "root.img", *spelt, "--logn=10", "-j2", "--")) == (0, "", "")
        assert Path(target).exists()


def test_binary_is_not_written_to_a_terminal(folder: Path) -> None:
    text = f"cd {folder} && qb-backup create --logn 10 --passphrase-file passphrase root.img >/dev/tty"
    with Terminal("bash", "-c", text) as tty:
        done = tty.finish()
    assert done.returncode == 2
    assert b"refusing to write binary data to a terminal" in done.stderr


def test_a_file_that_cannot_be_read(folder: Path) -> None:
    for name in ("none.qb", "."):
        done = backup(folder, "list", name)
        message = "cannot read none.qb: No such file or directory" if name == "none.qb" else ". is a directory"
        assert outcome(done) == (1, "", f"qb-backup: error: {message}\n")


def test_nothing_is_left_behind(folder: Path, tmp_path: Path) -> None:
    """No process, whatever happens."""
    with Running(tmp_path, folder, QB_PASSPHRASE_FILE="passphrase") as running:
        running.start("qb-backup create --logn 10 -q root.img | head -c 100 >/dev/null; qb-backup verify <root.img")
        assert running.end()[0] == 4
        wait_until(lambda: not running.processes(), "the end of all processes")


def test_an_image_that_needs_another_file(folder: Path, tmp_path: Path) -> None:
    """It is refused before anything is written."""
    (tmp_path / "disk.img").write_bytes((b"QFI\xfb\0\0\0\3" + bytes(6) + b"\2\0").ljust(5000, b"\0"))
    create = f"cd {tmp_path} && qb-backup create -q --logn 10 --passphrase-file {folder}/passphrase -o a.qb"
    for options, status in (("", 5), ("--opaque", 0), ("--state current", 0)):
        done = bash(f"{create} {options} disk.img")
        assert (done.returncode, b"image that needs another file: it has a backing file" in done.stderr) == (
            status,
            status == 5,
        )
        assert (tmp_path / "a.qb").exists() == (status == 0)
        (tmp_path / "a.qb").unlink(missing_ok=True)
