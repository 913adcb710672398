"""The status of each situation and its one line of message: the same for each program and for qb-backup."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import tarfile
from pathlib import Path

import pytest
import seriesdir
from devices import file_system, loop, tmpfs
from hostdirs import Machine, make_host
from product import PROGRAMS
from running import OF_FILE
from support import BIN, bash
from vectors import archivebytes as made
from vectors.archivebytes import Pieces

SIZE = 300_000
CHUNK = 65_536
ID = "20260101T000000-0123456789abcdef"
SEAL = "qb-seal --opaque --logn 10 --backup-id " + ID
CREATE = "qb-backup create -q --logn 10"
WRONG = "--passphrase-command 'echo wrong'"
EARLY = "standard input ends too early"
STREAM = "qb-volread root.img"
INNER = f"{STREAM} | qb-tarwrite vm1/root.img"
EXISTS = "--overwrite replaces it"
NO_ROOM = "No space left on device"
NO_FILE = "No such file or directory"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume and an archive of it; damaged ones of several kinds; hosts; programs that fail; a passphrase."""
    place = tmp_path_factory.mktemp("statuses")
    (place / "root.img").write_bytes(b"no stream\n" + random.Random(SIZE).randbytes(SIZE - 10))
    (place / "other.img").write_bytes(os.urandom(1000))
    (place / "passphrase").write_bytes(made.PASSPHRASE)
    (place / "passphrase").chmod(0o600)
    for name in ("few", "dies", "fails"):
        (place / name).mkdir()
    (place / "few/python3").symlink_to(shutil.which("python3") or "")
    for name, text in (("dies", "kill -KILL $$"), ("fails", "exit 3")):
        path = place / name / "igzip"
        # The metadata passes: it is a volume that meets the fault.
        path.write_text(f'{OF_FILE}[ "$QB_NAME" != qubes.xml ] || exec gzip "$@"\n{text}\n')
        path.chmod(0o755)
    (place / "bare").mkdir()
    for directory in ("/usr/bin", "/bin", str(BIN)):
        for found in Path(directory).iterdir():
            if found.name not in ("igzip", "pigz", "gzip") and not (place / "bare" / found.name).exists():
                (place / "bare" / found.name).symlink_to(found)
    (place / "bare/python3").unlink(missing_ok=True)
    (place / "bare/python3").symlink_to(shutil.which("python3") or "")
    (place / "list").write_text("a\tx\nend\n")
    for name in ("taken", "larger"):
        (place / name / "vm").mkdir(parents=True)
        (place / name / "vm/root.img").write_bytes(bytes(SIZE + 1))
        (place / name / "vm-root").write_bytes(b"")
    (place / "larger.img").write_bytes(bytes(SIZE + 1))
    none = Machine("none", "DispVM", {"include_in_backups": "True"})
    make_host(place / "A", [Machine("vm", "AppVM", {"template": "deb"}, {"private": b"data"}), none])
    (place / "A/dom0/user").mkdir(parents=True)
    (place / "B").mkdir()
    series = seriesdir.new(place / "series")
    seriesdir.save(series, ID)
    seriesdir.confirm(series, ID)
    shutil.copytree(series.path, place / "bad.series")
    data = (place / "bad.series/ledger").read_bytes()
    (place / "bad.series/ledger").write_bytes(data.replace(b"next 2", b"next 3"))
    good = bash(
        f"""cd {place} && {CREATE} --chunk-size {CHUNK} --id-file id -o a.qb vm:root=root.img two:root=other.img &&
        {CREATE} --host dir:A -o host.qb vm && {CREATE} --host A -o home.qb dom0 &&
        {CREATE} --host A -o bare.qb none && qb-unseal qubes.xml <host.qb | gzip -dc | qb-tarextract --raw >host.xml &&
        {STREAM} >stream && {SEAL} --record records a <stream >/dev/null && {INNER} >inner &&
        mkdir tree && tar -c --transform 's,^,vm1/,' tree >tree.tar &&
        qb-unseal qubes.xml <a.qb | gzip -dc | qb-tarextract --raw >meta.xml""",
        QB_PASSPHRASE_FILE="passphrase",
    )
    assert (good.returncode, good.stderr) == (0, b"")
    for name, data in damaged(place).items():
        (place / f"{name}.qb").write_bytes(data)
    return place


def damaged(place: Path) -> dict[str, bytes]:
    """Archives with one fault each."""
    with tarfile.open(place / "a.qb") as archive:
        pieces = [(info.name, archive.extractfile(info).read()) for info in archive]  # type: ignore[union-attr]
    names = [name for name, _ in pieces]
    at = names.index("vm1/root.img.001.enc")
    last = max(number for number, name in enumerate(names) if name.startswith("vm1/root.img."))
    body = pieces[at][1]
    flipped = body[:500] + bytes([body[500] ^ 1]) + body[501:]
    changed: dict[str, Pieces] = {
        "mac": [*pieces[:at], (names[at], flipped), *pieces[at + 1 :]],
        "missing": pieces[:at] + pieces[at + 1 :],
        "end-missing": pieces[:last] + pieces[last + 1 :],
        "doubled": [*pieces[:at], pieces[at], *pieces[at:]],
        "order": [*pieces[:at], pieces[at + 1], pieces[at], *pieces[at + 2 :]],
        "no-manifest": pieces[:-1],
    }
    found = {name: made.archive(kept) for name, kept in changed.items()}
    whole = (place / "a.qb").read_bytes()
    found["cut"] = whole[: len(whole) // 2]
    found["behind"] = whole + b"x"
    found["nothing"] = b""
    found["header"] = whole.replace(b"version=4", b"version=5", 1)
    return found


def outcome(place: Path, command: str, **changes: str) -> tuple[int, list[str]]:
    """The status of a command in place, and its messages without warnings."""
    secret = {"QB_PASSPHRASE_FILE": "passphrase", **changes}
    done = bash(f"cd {shlex.quote(str(place))} && {command}", **secret)
    lines = done.stderr.decode().splitlines()
    return done.returncode, [line for line in lines if ": warning: " not in line]


def check(place: Path, command: str, status: int, line: str, **changes: str) -> None:
    """The command ends with status, and says line (which may end in … for more of it), with a hint at most."""
    line = line.replace("{place}", str(place)).replace("{id}", (place / "id").read_text().strip())
    ended, said = outcome(place, command.replace("{place}", str(place)), **changes)
    assert (ended, len(said) in (1, 2)) == (status, True), (ended, said)
    assert said[0] == line or (line.endswith("…") and said[0].startswith(line[:-1])), said
    assert all(more.startswith("hint: ") for more in said[1:]), said


# Command, status, line.
ENVIRONMENT = [
    ("qb-volread none.img", f"qb-volread: error: cannot open none.img: {NO_FILE}"),
    (f"{STREAM} >/dev/full", f"qb-volread: error: cannot write to standard output: {NO_ROOM}"),
    ("qb-tarwrite a <stream >/dev/full", f"qb-tarwrite: error: cannot write to standard output: {NO_ROOM}"),
    ("qb-delta <stream >/dev/full", f"qb-delta: error: cannot write to standard output: {NO_ROOM}"),
    ("qb-merge none", f"qb-merge: error: cannot open none: {NO_FILE}"),
    ("qb-series list none", f"qb-series: error: cannot use none as a series: {NO_FILE}"),
    ("qb-compress gzip <stream >/dev/full", "qb-compress: error: …"),
    (f"PATH=few {BIN}/qb-compress gzip <stream", "qb-compress: error: no igzip or pigz or gzip in PATH"),
    ("PATH=dies:$PATH qb-compress gzip <stream", "qb-compress: error: igzip was killed by SIGKILL"),
    ("PATH=fails:$PATH qb-compress gzip <stream", "qb-compress: error: igzip ended with status 3"),
    (f"PATH=few {BIN}/qb-decompress gzip <stream", "qb-decompress: error: no igzip or pigz or gzip in PATH"),
    ("PATH=dies:$PATH qb-decompress gzip <stream", "qb-decompress: error: igzip was killed by SIGKILL"),
    (f"{SEAL} a <stream >/dev/full", f"qb-seal: error: cannot write to standard output: {NO_ROOM}"),
    (f"{SEAL} --passphrase-file none a", f"qb-seal: error: cannot read the passphrase from none: {NO_FILE}"),
    (f"{SEAL} --passphrase-command 'exit 9' a", "qb-seal: error: the passphrase command ended with status 9"),
    (f"{SEAL} --from-command 'exit 7' list", "qb-seal: error: a: the command ended with status 7"),
    (f"{SEAL} --from-command 'kill -9 $$' list", "qb-seal: error: a: the command was killed by SIGKILL"),
    (f"{SEAL} --from-command 'qb-volread none' list", f"qb-volread: error: cannot open none: {NO_FILE}"),
    ("qb-unseal --to-command 'exit 7' <a.qb", "qb-unseal: error: qubes.xml: the command ended with status 7"),
    ("qb-unseal --verify --to-command true <a.qb", "qb-unseal: error: qubes.xml: the command did not read all of it"),
    ("qb-unseal --passphrase-file none a <a.qb", f"qb-unseal: error: cannot read the passphrase from none: {NO_FILE}"),
    ("qb-header read none.qb", f"qb-header: error: cannot open none.qb: {NO_FILE}"),
    ("qb-key show --passphrase-file none <a.qb", f"qb-key: error: cannot read the passphrase from none: {NO_FILE}"),
    ("qb-key show <a.qb >/dev/full", f"qb-key: error: cannot write to standard output: {NO_ROOM}"),
    ("qb-key list <a.qb -q >/dev/full", f"qb-key: error: cannot write to standard output: {NO_ROOM}"),
    (f"qb-manifest --backup-id {ID} none", f"qb-manifest: error: cannot open none: {NO_FILE}"),
    ("qb-meta list none.xml", f"qb-meta: error: cannot open none.xml: {NO_FILE}"),
    ("qb-plan --metadata none.xml --host dir:B", f"qb-plan: error: cannot open none.xml: {NO_FILE}"),
    ("qb-host apply --host dir:B --metadata none.xml plan", f"qb-host: error: cannot open none.xml: {NO_FILE}"),
    ("qb-host-dir none inventory", f"qb-host-dir: error: cannot read {{place}}/none: {NO_FILE}"),
    ("qb-host-libvirt qemu+unix:///system?socket=none inventory", "qb-host-libvirt: error: …"),
    ("qb-host-lvm none/none inventory", "qb-host-lvm: error: …"),
    ("qb-snapshot take none.img", f"qb-snapshot: error: cannot open none.img: {NO_FILE}"),
    ("qb-store none/a.qb <a.qb", f"qb-store: error: cannot write to none/a.qb.partial: {NO_FILE}"),
    ("qb-store - <a.qb >/dev/full", f"qb-store: error: cannot write to standard output: {NO_ROOM}"),
    ("qb-tarextract <inner >/dev/full", f"qb-tarextract: error: cannot write to standard output: {NO_ROOM}"),
    ("qb-tree none a", f"qb-tree: error: cannot read none: {NO_FILE}"),
    ("qb-volwrite new <&-", "qb-volwrite: error: cannot read standard input: Bad file descriptor"),
    (f"{CREATE} none.img", f"qb-backup: error: cannot open none.img: {NO_FILE}"),
    (f"{CREATE} -o none/a.qb root.img", f"qb-backup: error: cannot write to none/a.qb.partial: {NO_FILE}"),
    (f"{CREATE} --id-file none/id root.img", f"qb-backup: error: cannot write none/id: {NO_FILE}"),
    (
        f"{CREATE} --host dir:none",
        f"qb-backup: error: qb-host-dir none inventory: cannot read {{place}}/none: {NO_FILE}",
    ),
    (f"{CREATE} root.img >/dev/full", f"qb-seal: error: cannot write to standard output: {NO_ROOM}"),
    (f"PATH=dies:$PATH {CREATE} root.img", "qb-compress: error: igzip was killed by SIGKILL"),
    (f"PATH=fails:$PATH {CREATE} root.img", "qb-compress: error: igzip ended with status 3"),
    ("qb-backup list none.qb", f"qb-backup: error: cannot read none.qb: {NO_FILE}"),
    ("qb-backup list a.qb >/dev/full", f"qb-backup: error: cannot write to standard output: {NO_ROOM}"),
    (
        "qb-backup verify --passphrase-file none a.qb",
        f"qb-unseal: error: cannot read the passphrase from none: {NO_FILE}",
    ),
    ("PATH=dies:$PATH qb-backup verify a.qb", "qb-decompress: error: igzip was killed by SIGKILL"),
    ("PATH=dies:$PATH qb-backup restore --to to a.qb", "qb-decompress: error: igzip was killed by SIGKILL"),
    ("PATH=dies:$PATH qb-backup restore -q --yes --host B a.qb", "qb-decompress: error: igzip was killed by SIGKILL"),
    ("PATH=bare qb-backup verify a.qb", "qb-decompress: error: no igzip or pigz or gzip in PATH"),
    ("PATH=bare qb-backup restore --to to a.qb", "qb-decompress: error: no igzip or pigz or gzip in PATH"),
    (f"PATH=bare {CREATE} root.img", "qb-compress: error: no igzip or pigz or gzip in PATH"),
    ("qb-backup restore --to root.img a.qb", "qb-backup: error: cannot create ./root.img/vm/root.img: …"),
    (
        "qb-backup restore -q --yes --host none a.qb",
        f"qb-backup: error: qb-host-dir none inventory: cannot read {{place}}/none: {NO_FILE}",
    ),
]
NAME = "a domain's name has 1 to 31 letters, digits, _, . and -, and begins with a letter"
USAGE = [
    ("qb-series forget series", "qb-series: error: forget needs an option that says what to keep"),
    ("qb-series confirm series x", "qb-series: error: {place}/series has no archive x"),
    ("qb-series forget --done x series", "qb-series: error: {place}/series has no archive x"),
    ("qb-series list --keep-last 1 series", "qb-series: error: --keep-last does not go with list"),
    ("qb-delta --id x <stream", "qb-delta: error: --id needs --index"),
    ("qb-merge", "qb-merge: error: no base given"),
    ("qb-backup restore -q --yes --host B home.qb", "qb-backup: error: no target given for the home of dom0"),
    (
        "qb-tarwrite --raw a <&-",
        "qb-tarwrite: error: --raw needs --size: standard input is neither a file nor a block device",
    ),
    ("qb-compress rar <stream", "qb-compress: error: unknown filter: rar"),
    ("qb-decompress rar <stream", "qb-decompress: error: unknown filter: rar"),
    (f"{SEAL} --from-command ' ' list", "qb-seal: error: --from-command: the command is empty"),
    ("qb-unseal --to-command '' <a.qb", "qb-unseal: error: --to-command: the command is empty"),
    ("qb-unseal --max-work 9 --verify <a.qb", "qb-unseal: error: --max-work: must be a number between 10 and 60"),
    ("qb-key rewrap <a.qb", "qb-key: error: nothing is given that wraps the passphrase"),
    ("qb-key show -i id <a.qb", "qb-key: error: -i: the archive has no qb-key.age"),
    ("qb-volread .", "qb-volread: error: . is a directory, not a file or a block device"),
    (
        "qb-volwrite /dev/null <stream",
        "qb-volwrite: error: /dev/null is a character device, not a file or a block device",
    ),
    ("qb-plan --metadata meta.xml --host x:y", "qb-plan: error: there is no host of the kind x"),
    (f"{CREATE} 1vm:root=root.img", f"qb-backup: error: cannot save 1vm:root=root.img as the domain 1vm: {NAME}"),
    (f"{CREATE} vm:root=root.img vm:root=other.img", "qb-backup: error: vm:root is given twice"),
    (f"{CREATE} 'vm:-x=root.img'", "qb-backup: error: cannot save a volume as -x: …"),
    (f"{CREATE} .", "qb-backup: error: . is a directory, not a file or a block device"),
    (f"{CREATE} --host A nobody", "qb-backup: error: there is no domain nobody"),
    (f"{CREATE} --host A --include 'x*'", "qb-backup: error: no domain matches x*"),
    (f"{CREATE} --host x:y", "qb-backup: error: there is no host of the kind x"),
    ("qb-host-dir '' inventory", "qb-host-dir: error: the directory has no name"),
    (
        "qb-host-libvirt qemu+ssh://server/system inventory",
        "qb-host-libvirt: error: qemu+ssh://server/system may be on another machine, whose volumes cannot be read here",
    ),
    (f"{CREATE} --chunk-size 0 root.img", "qb-seal: error: --chunk-size: must be between 1 and …"),
    ("qb-backup restore --to to --only nobody a.qb", "qb-backup: error: the archive has no domain nobody"),
    ("qb-backup restore --to to --only 1vm a.qb", f"qb-backup: error: --only: 1vm: {NAME}"),
    ("qb-backup restore --to to --map vm:private=x a.qb", "qb-backup: error: the archive has no volume vm:private"),
    ("qb-backup restore --to to --map vm=x a.qb", "qb-backup: error: --map: not DOMAIN:VOLUME=TARGET: vm=x"),
    ("qb-backup restore --map vm:root=x a.qb", "qb-backup: error: no target given for two:root"),
    ("qb-backup restore --host B --yes --include nobody a.qb", "qb-backup: error: no domain matches nobody"),
    ("qb-backup verify --max-work 9 a.qb", "qb-unseal: error: --max-work: must be a number between 10 and 60"),
    ("qb-backup list --passphrase-fd x a.qb", "qb-backup: error: --passphrase-fd: not a descriptor: x"),
]
PASSPHRASE = [
    (f"qb-unseal {WRONG} --verify <a.qb", "qb-unseal"),
    (f"qb-unseal {WRONG} vm1/root.img <a.qb", "qb-unseal"),
    (f"qb-header read {WRONG} a.qb", "qb-header"),
    (f"qb-key show {WRONG} <a.qb", "qb-key"),
    (f"qb-backup list {WRONG} a.qb", "qb-unseal"),
    (f"qb-backup verify {WRONG} a.qb", "qb-unseal"),
    (f"qb-backup restore --to to {WRONG} a.qb", "qb-unseal"),
    (f"qb-backup restore --host B -q --yes {WRONG} a.qb", "qb-unseal"),
    (f"qb-backup restore --host B --dry-run {WRONG} a.qb", "qb-unseal"),
]
TRUNCATED_STREAM = "the volume stream on standard input ends without its end line"
NO_GZIP = "standard input cannot be decompressed: …"
NO_LINE = "does not name the columns of a plan"
NO_END = "standard input ends without its end line"
NOT_UTF8 = "the metadata is not UTF-8 text"
DAMAGE = [
    ("qb-series list bad.series", "qb-series: error: {place}/bad.series/ledger is damaged: …"),
    ("head -c -1 stream | qb-tarwrite a", f"qb-tarwrite: error: {TRUNCATED_STREAM}"),
    ("qb-tarwrite a <root.img", "qb-tarwrite: error: standard input is not a volume stream"),
    ("head -c 5000 stream | qb-delta", "qb-delta: error: standard input ends too early"),
    (
        f"qb-merge stream stream >{os.devnull}",
        f"qb-merge: error: stream is a whole volume of {SIZE} bytes, not an increment",
    ),
    ("qb-tarwrite --size 1 a <stream", f"qb-tarwrite: error: the volume has {SIZE} bytes, not 1"),
    ("head -c 5000 inner | qb-tarextract", f"qb-tarextract: error: {EARLY}"),
    ("head -c -512 inner | qb-tarextract", f"qb-tarextract: error: {EARLY}"),
    ("qb-tarextract other <inner", "qb-tarextract: error: the archive has no member other"),
    ("(cat inner; echo x) | qb-tarextract", "qb-tarextract: error: something follows the end of the archive"),
    ("qb-decompress gzip <root.img", f"qb-decompress: error: {NO_GZIP}"),
    ("gzip -c root.img | head -c 1000 | qb-decompress gzip", f"qb-decompress: error: {NO_GZIP}"),
    (
        "PATH=fails:$PATH qb-decompress gzip <root.img",
        "qb-decompress: error: standard input cannot be decompressed: igzip ended with status 3",
    ),
    ("head -c -1 stream | qb-volwrite new", f"qb-volwrite: error: {TRUNCATED_STREAM}"),
    ("qb-volwrite new <root.img", "qb-volwrite: error: standard input is not a volume stream"),
    ("(cat stream; echo x) | qb-volwrite new", "qb-volwrite: error: …"),
    ("qb-tree --extract new other <tree.tar", "qb-tree: error: the archive has no member other"),
    ("qb-tree --verify other <tree.tar", "qb-tree: error: the archive has no member other"),
    ("head -c 1000 tree.tar | qb-tree --extract new vm1", f"qb-tree: error: {EARLY}"),
    ("qb-meta list root.img", f"qb-meta: error: {NOT_UTF8}"),
    ("echo '<qubes>' | qb-meta list", "qb-meta: error: the metadata is not well-formed: line 2: no element found"),
    ("echo 'came\tqubes.xml\t-' | qb-meta check --metadata meta.xml", f"qb-meta: error: {NO_END}"),
    ("qb-plan --metadata root.img --host B", f"qb-plan: error: {NOT_UTF8}"),
    ("qb-plan --check root.img --metadata meta.xml --host B", f"qb-plan: error: root.img: line 1 {NO_LINE}"),
    ("qb-host apply --host B --metadata meta.xml root.img", f"qb-host: error: root.img: line 1 {NO_LINE}"),
    (
        f"qb-manifest --backup-id {ID} root.img",
        "qb-manifest: error: line 1 of root.img is not a record of a sealed file",
    ),
    (f"head -1 list | {SEAL} --from-command 'echo x' -", "qb-seal: error: the list ends without its line end"),
    (f"echo end | {SEAL} --from-command 'echo x' -", "qb-seal: error: the list is empty"),
    (f"{SEAL} --from-command 'head -c 9 stream | qb-tarwrite a' list", f"qb-seal: error: a: qb-tarwrite: {EARLY}"),
    (
        f"{SEAL} --from-command 'qb-tarwrite a <root.img' list",
        "qb-tarwrite: error: standard input is not a volume stream",
    ),
    (
        "qb-unseal --routes /dev/null --to-command cat <a.qb",
        "qb-unseal: error: the list of routes ends without its line end",
    ),
    ("qb-unseal other <a.qb", "qb-unseal: error: other is not in the archive"),
    ("qb-unseal --structure <cut.qb", "qb-unseal: error: the archive ends in the middle of vm1/root.img.002.enc"),
    ("qb-key show <header.qb", "qb-key: error: backup-header differs from its sealed copy: the archive was changed"),
    ("qb-key list <nothing.qb", "qb-key: error: the archive is empty: did the program before fail?"),
    (
        "qb-key rewrap --wrap-passphrase <nothing.qb",
        "qb-key: error: the archive is empty: did the program before fail?",
    ),
    ("qb-header read nothing.qb", "qb-header: error: the archive is empty: did the program before fail?"),
    (
        "qb-header read header.qb",
        "qb-header: error: backup-header differs from its sealed copy: the archive was changed",
    ),
]
LARGER = f"has {SIZE + 1} bytes, the volume only {SIZE}"
TOO_COSTLY = "a key derivation of N=2^10, r=8, p=1 is beyond the limit"
NOT_THE_ID = f"the archive has the backup ID {{id}}, not {ID}"
REFUSED = [
    ("qb-series list few", "qb-series: error: few is not the directory of a series: it has no ledger"),
    (f"qb-series forget --done {ID} series", f"qb-series: error: {ID} is kept: …"),
    (f"qb-delta --index a.qb --id x --name a <stream >{os.devnull}", "qb-delta: error: a.qb already exists"),
    ("qb-volwrite root.img <stream", "qb-volwrite: error: root.img already exists"),
    ("qb-volwrite --overwrite larger.img <stream", f"qb-volwrite: error: larger.img {LARGER}"),
    ("qb-store a.qb <a.qb", "qb-store: error: a.qb already exists"),
    ("qb-store --max-size 1K x.qb <a.qb", "qb-store: error: the archive has more than 1024 bytes"),
    ("qb-store x.qb <header.qb", "qb-store: error: backup-header: unknown version 5"),
    (f"qb-unseal --expect-id {ID} --verify <a.qb", f"qb-unseal: error: {NOT_THE_ID}"),
    ("qb-unseal --require-version 3 --verify <a.qb", "qb-unseal: error: the archive has version 4, not 3"),
    ("qb-unseal --max-work 10 --verify <a.qb", f"qb-unseal: error: {TOO_COSTLY}"),
    ("qb-unseal --max-memory 1M --verify <a.qb", "qb-unseal: error: 1 MiB of memory are needed for one chunk, …"),
    (f"qb-header read --expect-id {ID} a.qb", f"qb-header: error: {NOT_THE_ID}"),
    ("qb-header read --max-work 10 a.qb", f"qb-header: error: {TOO_COSTLY}"),
    (f"qb-key show --expect-id {ID} <a.qb", f"qb-key: error: {NOT_THE_ID}"),
    ("qb-key show --max-work 10 <a.qb", f"qb-key: error: {TOO_COSTLY}"),
    (
        "qb-key rewrap --wrap-passphrase <a.qb",
        "qb-key: error: the archive has no wrapped passphrase:"
        " its chunks are sealed with the passphrase that somebody typed",
    ),
    (f"{SEAL} --passphrase-file /dev/null a <stream", "qb-seal: error: the passphrase is empty"),
    (
        f"qb-manifest --backup-id {ID} --passphrase-file /dev/null records",
        "qb-manifest: error: the passphrase is empty",
    ),
    ("qb-tree --extract tree vm1 <tree.tar", "qb-tree: error: tree already exists"),
    ("qb-tarextract --volumes --create vm1/. root=root.img <inner", "qb-tarextract: error: root.img already exists"),
    ("qb-plan --metadata host.xml --host B", "qb-plan: error: 1 of the domains cannot be restored: …"),
    ("qb-host-dir A create <host.xml", "qb-host-dir: error: the domain vm already exists"),
    (
        "qb-host-libvirt test:///default create <host.xml",
        "qb-host-libvirt: error: the driver of libvirt for tests keeps no domains, so nothing can be restored to it",
    ),
    (f"{CREATE} -o a.qb root.img", "qb-backup: error: a.qb already exists"),
    (f"{CREATE} -o a.qb --host A", "qb-backup: error: a.qb already exists"),
    (f"{CREATE} --passphrase-file /dev/null root.img", "qb-seal: error: the passphrase is empty"),
    (f"{CREATE} --host A --exclude '*'", "qb-backup: error: no domain is selected for backup"),
    (f"qb-backup list --expect-id {ID} a.qb", f"qb-unseal: error: {NOT_THE_ID}"),
    ("qb-backup verify --max-work 10 a.qb", f"qb-unseal: error: {TOO_COSTLY}"),
    ("qb-backup restore --to taken a.qb", "qb-backup: error: ./taken/vm/root.img already exists"),
    ("qb-backup restore --pool file:{place}/taken a.qb", "qb-backup: error: {place}/taken/vm-root already exists"),
    ("qb-backup restore --overwrite --to larger a.qb", f"qb-backup: error: ./larger/vm/root.img {LARGER}"),
    ("qb-backup restore --to to home.qb", "qb-backup: error: no volume to restore"),
    ("qb-backup restore --to to --only none bare.qb", "qb-backup: error: no volume to restore"),
    (
        "qb-backup restore -q --yes --host B host.qb",
        "qb-backup: error: 1 of the domains cannot be restored: …",
    ),
    ("qb-backup restore --host B a.qb", "qb-backup: error: there is no terminal to ask for confirmation"),
]


@pytest.mark.parametrize(("command", "line"), ENVIRONMENT)
def test_the_environment_fails(command: str, line: str, folder: Path) -> None:
    check(folder, command, 1, line)


@pytest.mark.parametrize(("command", "line"), USAGE)
def test_usage(command: str, line: str, folder: Path) -> None:
    check(folder, command, 2, line)


@pytest.mark.parametrize(("command", "program"), PASSPHRASE)
def test_another_passphrase(command: str, program: str, folder: Path) -> None:
    check(folder, command, 3, f"{program}: error: the passphrase is wrong")


@pytest.mark.parametrize(("command", "line"), DAMAGE)
def test_damage(command: str, line: str, folder: Path) -> None:
    check(folder, command, 4, line)


@pytest.mark.parametrize(("command", "line"), REFUSED)
def test_what_is_refused(command: str, line: str, folder: Path) -> None:
    check(folder, command, 5, line)


def test_every_program_is_in_the_tables() -> None:
    """qb-host-lvm needs a pool, qb-snapshot a file system: tests that have these also test the refusals."""
    text = {name: " ".join(command for command, _ in rows) for name, rows in TABLES.items()}
    for program in PROGRAMS:
        assert program in text["environment"] or program == "qb-decompress", program
    reading = set(PROGRAMS) - {"qb-volread", "qb-compress", "qb-snapshot", "qb-host-dir", "qb-host-lvm", "qb-store"}
    reading -= {"qb-host-libvirt"}  # libvirt gives no damaged XML
    assert {program for program in reading if program not in text["damage"] and program != "qb-backup"} == set()


TABLES = {"environment": ENVIRONMENT, "usage": USAGE, "damage": DAMAGE, "refused": REFUSED}

OUT_OF_PLACE = "a chunk is missing, doubled or out of place"
ARCHIVES = {
    "mac": "vm1/root.img.001.enc does not authenticate: the archive is damaged here",
    "missing": f"vm1/root.img.002.enc comes where vm1/root.img.001.enc is due: {OUT_OF_PLACE}",
    "end-missing": "vm1/root.img is incomplete: its chunk 004 is missing",
    "doubled": f"vm1/root.img.001.enc comes where vm1/root.img.002.enc is due: {OUT_OF_PLACE}",
    "order": f"vm1/root.img.002.enc comes where vm1/root.img.001.enc is due: {OUT_OF_PLACE}",
    "no-manifest": "the manifest is missing: the archive is incomplete",
    "cut": "the archive ends in the middle of vm1/root.img.002.enc",
    "behind": "something follows the end of the archive",
    "nothing": "the archive is empty: did the program before fail?",
    "header": "backup-header differs from its sealed copy: the archive was changed",
}
OPENING = {
    "qb-unseal --verify": "qb-unseal --verify <{}",
    "qb-unseal --list": "qb-unseal --list <{}",
    "qb-unseal NAME": "qb-unseal vm1/root.img <{} >/dev/null",
    "qb-unseal --to-command": "qb-unseal --to-command 'cat >/dev/null' <{}",
    "qb-store": "qb-store - <{} >/dev/null",
    "list": "qb-backup list {}",
    "verify": "qb-backup verify {}",
    "restore": "rm -rf to; qb-backup restore --to to {}",
    "restore to a host": "qb-backup restore -q --yes --host B {}",
}


# All of it with the programs that read a whole archive. The other ways of qb-unseal (test_outer_vectors.py has all
# faults for them), and the commands of qb-backup, which start it, get some faults each. What becomes of volumes and of
# a host is in test_damage.py.
SOME = {
    "qb-unseal --list": ("mac", "missing", "no-manifest", "nothing"),
    "qb-unseal NAME": ("mac", "order", "cut", "no-manifest"),
    "qb-unseal --to-command": ("mac", "end-missing", "behind", "header"),
    "list": ("mac", "nothing"),
    "verify": ("doubled", "header"),
    "restore": ("missing", "header"),
    "restore to a host": ("cut", "header"),
}


@pytest.mark.parametrize(("how", "archive"), [(how, archive) for how in OPENING for archive in SOME.get(how, ARCHIVES)])
def test_an_archive_that_is_damaged(how: str, archive: str, folder: Path) -> None:
    command = OPENING[how].format(f"{archive}.qb")
    unopened = archive == "mac" and how in ("list", "qb-unseal --list", "qb-store")  # which open no volume
    # Only the sealed manifest says whether the file failed when it was saved.
    if unopened or (archive, how) == ("end-missing", "qb-store"):
        assert outcome(folder, f"{command} >/dev/null") == (0, [])
    elif (archive, how) == ("header", "qb-store"):
        check(folder, command, 5, "qb-store: error: backup-header: unknown version 5")
    else:
        program = "qb-store" if how == "qb-store" else "qb-unseal"
        check(folder, command, 4, f"{program}: error: {ARCHIVES[archive]}")
    assert os.listdir(folder / "B") in (
        [],
        ["qubes.xml"],
        ["qubes.xml", "qubes.xml.lock"],
        ["qubes.xml.lock", "qubes.xml"],
    )


# --- inside the seals: authentic, but wrong ---

NO_GZIP = "qb-decompress: error: standard input cannot be decompressed: …"
EMPTY = "qb-unseal: error: {}: qb-tarextract: standard input is empty: did the program before fail?"
NO_SEAL = "qb-unseal: error: {}: qb-tarextract: standard input ends too early"
# The replacement of the metadata and of the volume; the line for the metadata if that is wrong.
WITHIN = {
    "metadata is not compressed": ("cat meta.xml", "gzip -c inner", NO_GZIP),
    "metadata is in no archive": ("gzip -c meta.xml", "gzip -c inner", "qb-tarextract: error: …"),
    "metadata is empty": ("gzip -c </dev/null", "gzip -c inner", EMPTY.format("qubes.xml")),
    "metadata is cut": (
        "head -c 300 meta.xml | {xml}",
        "gzip -c inner",
        "qb-backup: error: the metadata is not well-…",
    ),
    "metadata is other XML": (
        "echo '<a/>' | {xml}",
        "gzip -c inner",
        'qb-backup: error: this is not a qubes.xml: its root is "a"',
    ),
    "volume is not compressed": ("{xml} <meta.xml", "cat inner", NO_GZIP),
    "volume is empty": ("{xml} <meta.xml", "gzip -c </dev/null", EMPTY.format("vm1/root.img")),
    "volume is cut": ("{xml} <meta.xml", "head -c 9999 inner | gzip -c", NO_SEAL.format("vm1/root.img")),
    "compressed volume is cut": ("{xml} <meta.xml", "gzip -c inner >inner.gz && head -c 9999 inner.gz", NO_GZIP),
    "volume is another": ("{xml} <meta.xml", "gzip -c tree.tar", "qb-tarextract: error: the archive has no member …"),
    "more behind it": ("{xml} <meta.xml", "(cat inner; echo x) | gzip -c", "qb-tarextract: error: something follows …"),
}


@pytest.mark.parametrize("within", WITHIN)
def test_an_archive_that_is_authentic_and_wrong(within: str, folder: Path) -> None:
    metadata, volume, line = WITHIN[within]
    xml = "(cat >x.xml; qb-tarwrite --raw qubes.xml <x.xml | gzip -c)"
    cases = f"case $QB_NAME in qubes.xml) {metadata.format(xml=xml)} ;; vm1/*) {volume} ;; *) {TWO} ;; esac"
    listed = r"qubes.xml\tx\nvm1/root.img\tx\nvm2/root.img\tx\nend\n"
    sealed = outcome(
        folder, f"printf '{listed}' | qb-seal --opaque --logn 10 --from-command {shlex.quote(cases)} - >within.qb"
    )
    assert sealed == (0, [])
    assert outcome(folder, "qb-unseal --verify <within.qb") == (0, [])
    if within.startswith("metadata"):
        check(folder, "qb-backup list within.qb", 4, line)
    others = ("verify", "restore -q --yes --host B")
    for command in ("restore --to to", *(others if within in TO_HOST else ())):
        check(folder, f"rm -rf to; qb-backup {command} within.qb", 4, line)
    assert not [path for path in (folder / "to").rglob("*.img") if "two" not in path.parts]


# The other commands fail for the same reason: one for each stage that finds it. For volumes, and what becomes of a host
# then, test_damage.py has them.
TO_HOST = {"metadata is empty", "metadata is other XML"}
TWO = "qb-volread other.img | qb-tarwrite vm2/root.img | gzip -c"


# --- volumes that are in use, too small, or there already ---


def test_devices(folder: Path, tmp_path: Path) -> None:
    """Created from and restored to: mounted, too small, without --overwrite."""
    for name, size in (("small", SIZE // 512 * 512 - 4096), ("large", 8 << 20)):
        (tmp_path / name).write_bytes(bytes(size))
    only = "qb-backup restore --only vm"
    with loop(tmp_path / "small") as small, loop(tmp_path / "large") as large:
        write = "qb-volwrite --overwrite"
        check(folder, f"{write} {small} <stream", 5, f"qb-volwrite: error: {small} …")
        check(folder, f"{only} --overwrite --map vm:root={small} a.qb", 5, f"qb-backup: error: {small} is too small…")
        check(folder, f"qb-volwrite {large} <stream", 5, f"qb-volwrite: error: {large} already exists")
        check(folder, f"{only} --map vm:root={large} a.qb", 5, f"qb-backup: error: {large} already exists")
    with file_system(tmp_path, "ext4", 64 << 20) as place:
        device = bash(f"findmnt -no SOURCE {place}").stdout.decode().strip()
        mounted = f"{device} is in use: it is mounted on {place}"
        check(folder, f"{write} {device} <stream", 5, f"qb-volwrite: error: {mounted}")
        check(folder, f"{only} --overwrite --map vm:root={device} a.qb", 5, f"qb-backup: error: {mounted}")
        check(folder, f"qb-volread {device}", 5, f"qb-volread: error: {mounted}")
        for output in (">new.qb", "-o new.qb"):
            check(folder, f"rm -f new.qb; {CREATE} vm:root={device} {output}", 5, f"qb-volread: error: {mounted}")
            assert outcome(folder, "qb-unseal --structure <new.qb")[0] != 0


def test_a_file_that_somebody_writes(folder: Path, tmp_path: Path) -> None:
    """If no snapshot can be taken; with a host this is checked before anything is read."""
    with tmpfs(tmp_path / "memory", 64 << 20) as place:
        host = make_host(place / "A", [Machine("vm", data={"root": b"x", "private": b"x"})])
        path = host / "vm/root.img"
        with path.open("r+b"):
            for command, program in (
                (f"qb-volread {path} >/dev/null", "qb-volread"),
                (f"{CREATE} {path}", "qb-volread"),
            ):
                check(
                    folder,
                    f"{command} -o new.qb" if "create" in command else command,
                    5,
                    f"{program}: error: {path} is in use: …",
                )
            check(
                folder,
                f"{CREATE} --host {host} -o new.qb",
                1,
                f"qb-backup: error: 1 of 1 domains cannot be saved: vm (the machine runs; {path} is in use: …",
            )
            check(
                folder,
                f"{CREATE} --strict --host {host} -o new.qb",
                5,
                f"qb-backup: error: vm cannot be saved: the machine runs; {path} is in use: …",
            )
            check(
                folder, f"qb-snapshot take {path}", 5, f"qb-snapshot: error: {path}: no snapshot can be taken here: …"
            )
            check(
                folder,
                f"qb-volwrite --overwrite --shrink {path} <stream",
                5,
                f"qb-volwrite: error: {path} is in use: …",
            )
        assert not list(folder.glob("new.qb*"))


# --- the archive is one thing, the file of its ID another ---


def test_an_id_that_cannot_be_written_at_the_end(folder: Path) -> None:
    """The archive is complete: it stays, and the message says so."""
    told = "qb-backup: error: the archive is complete, but /dev/full cannot be written: No space left on device"
    for words in ("root.img", "--host A vm"):
        check(folder, f"rm -f new.qb; {CREATE} --id-file /dev/full -o new.qb {words}", 1, told)
        assert outcome(folder, "qb-backup verify new.qb") == (0, [])
    done = bash(
        f"cd {folder} && {CREATE} --id-file /dev/full -o json.qb --json --host A vm", QB_PASSPHRASE_FILE="passphrase"
    )
    document = json.loads(done.stdout)
    assert (done.returncode, document["status"], document["domains"][0]["problem"]) == (1, 1, None)


def test_a_file_with_an_id_is_not_touched_when_the_archive_fails(folder: Path) -> None:
    (folder / "before.id").write_text("before\n")
    check(
        folder,
        f"PATH=dies:$PATH {CREATE} --id-file before.id -o dead.qb root.img",
        1,
        "qb-compress: error: igzip was killed by SIGKILL",
    )
    assert (folder / "before.id").read_text() == "before\n"
    assert [path.name for path in folder.iterdir() if path.name.startswith(("before.id", "dead"))] == ["before.id"]
