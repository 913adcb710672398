"""Archives of Qubes OS 2 to 3.2, end to end: list, verify, restore; damage, and errors that cannot be noticed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from support import need, run
from version3 import PASSPHRASE, Maker, joined

Members = list[tuple[str, bytes]]

WARNING = b"warning: an archive of version 3: missing or exchanged files, and files of another backup, are not detected"

# Cut down from what Qubes OS 3.2 writes: dom0, a template that is saved and one that is not, machines of each kind.
XML = """\
<QubesVmCollection clockvm="5" default_fw_netvm="5" default_kernel="4.4.14-11" default_netvm="6" default_template="1"
    updatevm="6">
  <QubesAdminVm backup_content="True" backup_path="dom0-home/user" backup_size="9" label="black" name="dom0" qid="0"
    pcidevs="[]" services="{'meminfo-writer': True}" template_qid="none"/>
  <QubesTemplateVm backup_content="False" backup_path="" label="black" name="fedora-23" qid="1" template_qid="none"/>
  <QubesTemplateVm backup_content="True" backup_path="{tpl}" label="black" name="tpl" qid="7" template_qid="none"/>
  <QubesNetVm backup_content="True" backup_path="{net}" label="red" name="sys-net" qid="5" template_qid="1"
    pcidevs="['02:00.0']" services="{'ntpd': False}"/>
  <QubesAppVm backup_content="True" backup_path="{work}" label="green" name="work" netvm_qid="5" qid="2"
    template_qid="7" uses_default_netvm="False"/>
  <QubesHVm backup_content="True" backup_path="{win}" label="blue" name="win" qid="14" template_qid="none"/>
</QubesVmCollection>
"""
PATHS = {
    True: {"tpl": "vm7", "net": "vm5", "work": "vm2", "win": "vm14"},  # as Qubes does by default
    False: {"tpl": "vm-templates/tpl", "net": "servicevms/sys-net", "work": "appvms/work", "win": "appvms/win"},
}
VOLUMES = {
    "tpl": ("root", "private"),
    "net": ("private",),
    "work": ("private",),
    "win": ("root", "private"),
}
DOMAIN = {"tpl": "tpl", "net": "sys-net", "work": "work", "win": "win"}


class Archive:
    """An archive in pieces. hidden: names of the machines do not show in it."""

    def __init__(self, place: Path, hidden: bool, maker: Maker) -> None:
        self.place = place
        self.maker = maker
        paths = PATHS[hidden]
        xml = XML
        for key, path in paths.items():
            xml = xml.replace(f"{{{key}}}", path)
        (place / "qubes.xml").write_text(xml)
        sources = {"qubes.xml": place / "qubes.xml"}
        for machine in ("net", "work", "win"):
            for file in sorted((place / machine).iterdir()):
                sources[f"{paths[machine]}/{file.name}"] = file
        sources[f"{paths['tpl']}/."] = place / "tpl"
        sources["dom0-home/user"] = place / "user"
        self.members = maker.members(sources)

    def joined(self, members: Members | None = None) -> bytes:
        return joined(self.place, members or self.members)

    def at(self, name: str) -> int:
        return [member for member, _ in self.members].index(name)


def sparse(path: Path, size: int) -> None:
    """Holes and data in turn."""
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        for at in range(0, size, 65536):
            file.seek(at)
            file.write(os.urandom(4096))
        file.truncate(size)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The machines, and a passphrase."""
    need("openssl", "tar", "gzip")
    place = tmp_path_factory.mktemp("version3")
    for machine, volumes in VOLUMES.items():
        for number, volume in enumerate(volumes, 5):
            sparse(place / machine / f"{volume}.img", number * 65536 + 512)
    sparse(place / "tpl" / "volatile.img", 8192)
    (place / "tpl" / "apps.templates").mkdir()
    (place / "tpl" / "apps.templates" / "x.desktop").write_text("[Desktop Entry]\n")
    (place / "work" / "firewall.xml").write_text("<QubesFirewallRules/>")
    (place / "work" / "icon.png").symlink_to(place / "work" / "firewall.xml")
    (place / "win" / "apps").mkdir()
    (place / "win" / "apps" / "x.desktop").write_text("[Desktop Entry]\n")
    (place / "user").mkdir()
    (place / "user" / "notes").write_text("notes\n")
    (place / "user" / "link").symlink_to("notes")
    (place / "passphrase").write_text(PASSPHRASE)
    (place / "passphrase").chmod(0o600)
    return place


@pytest.fixture(scope="module")
def hidden(place: Path) -> Archive:
    """Encrypted, in several chunks that end anywhere; of the metadata one."""
    whole = Archive(place, True, Maker(place, cut=10_001))
    assert sum(name.startswith("vm14/root.img.") for name, _ in whole.members) >= 4
    return whole


@pytest.fixture(scope="module")
def plain(place: Path) -> Archive:
    """Not encrypted, the names in it."""
    return Archive(place, False, Maker(place, encrypted=False))


@pytest.fixture(params=["hidden", "plain"])
def archive(request: pytest.FixtureRequest) -> Archive:
    made: Archive = request.getfixturevalue(request.param)
    return made


def program(place: Path, *words: str | Path, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return run(*words, "--passphrase-file", place / "passphrase", data=data)


def good(place: Path, *words: str | Path, data: bytes = b"") -> bytes:
    done = program(place, *words, data=data)
    assert done.returncode == 0, done.stderr
    return done.stdout


def bad(place: Path, status: int, message: bytes, *words: str | Path, data: bytes = b"") -> bytes:
    done = program(place, *words, data=data)
    assert (done.returncode, message in done.stderr) == (status, True), done.stderr
    said = [line for line in done.stderr.splitlines() if b": warning: " not in line]
    assert b": error: " in said[0] and [line[:6] for line in said[1:]] in ([], [b"hint: "]), done.stderr
    return done.stdout


def test_what_is_listed(place: Path, archive: Archive, hidden: Archive) -> None:
    lines = good(place, "qb-backup", "list", data=archive.joined()).decode().splitlines()
    paths = PATHS[archive is hidden]
    assert lines == [
        "dom0\tAdminVM\t-\tdom0-home/user\t-",
        f"tpl\tTemplateVM\troot\t{paths['tpl']}/.\t-",
        f"tpl\tTemplateVM\tprivate\t{paths['tpl']}/.\t-",
        f"sys-net\tAppVM\tprivate\t{paths['net']}/private.img\t-",
        f"work\tAppVM\tprivate\t{paths['work']}/private.img\t-",
        f"win\tStandaloneVM\troot\t{paths['win']}/root.img\t-",
        f"win\tStandaloneVM\tprivate\t{paths['win']}/private.img\t-",
    ]


def test_all_is_well(place: Path, archive: Archive) -> None:
    done = program(place, "qb-backup", "verify", data=archive.joined())
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    lines = done.stderr.splitlines()
    assert [line for line in lines if WARNING not in line] == []
    assert len(lines) == 1
    good(place, "qb-unseal", "--verify", data=archive.joined())


def test_restored(place: Path, archive: Archive, tmp_path: Path) -> None:
    done = program(place, "qb-backup", "restore", "--to", tmp_path / "to", data=archive.joined())
    assert done.returncode == 0, done.stderr
    for machine, volumes in VOLUMES.items():
        for volume in volumes:
            restored = tmp_path / "to" / DOMAIN[machine] / f"{volume}.img"
            assert restored.read_bytes() == (place / machine / f"{volume}.img").read_bytes()
    found = sorted(str(path.relative_to(tmp_path / "to")) for path in (tmp_path / "to").rglob("*.img"))
    assert len(found) == sum(map(len, VOLUMES.values()))
    assert b"firewall.xml is not a volume: it is not restored" in done.stderr


def test_restored_to_a_host(place: Path, archive: Archive, tmp_path: Path) -> None:
    """This metadata has no sizes of volumes; both volumes of the template come from one file."""
    (tmp_path / "B").mkdir()
    (tmp_path / "files").mkdir()
    words = ("restore", "--host", tmp_path / "B", "--files-to", tmp_path / "files", "--yes", "--ignore-missing")
    done = program(place, "qb-backup", *words, data=archive.joined())
    assert done.returncode == 0, done.stderr
    found = {str(path.relative_to(tmp_path / "B")): path.read_bytes() for path in (tmp_path / "B").rglob("*.img")}
    assert found == {
        f"{DOMAIN[machine]}/{volume}.img": (place / machine / f"{volume}.img").read_bytes()
        for machine, volumes in VOLUMES.items()
        for volume in volumes
    }
    assert b"qbtools-unfinished" not in (tmp_path / "B" / "qubes.xml").read_bytes()
    assert (tmp_path / "files" / DOMAIN["work"] / "firewall.xml").read_text() == "<QubesFirewallRules/>"
    assert (tmp_path / "files/dom0-home/user/notes").read_text() == "notes\n"
    assert (tmp_path / "files" / DOMAIN["win"] / "apps/x.desktop").exists()


def test_only_one_machine(place: Path, hidden: Archive, tmp_path: Path) -> None:
    for domain, count in (("work", 1), ("tpl", 2)):
        to = tmp_path / domain
        good(place, "qb-backup", "restore", "--to", to, "--only", domain, data=hidden.joined())
        assert len(list(to.rglob("*.img"))) == count


def test_a_target_that_exists(place: Path, hidden: Archive, tmp_path: Path) -> None:
    """For a template, whose two volumes come from one archive."""
    for volume in ("root", "private"):
        to = tmp_path / volume
        (to / "tpl").mkdir(parents=True)
        (to / "tpl" / f"{volume}.img").write_text("mine")
        message = f"tpl/{volume}.img already exists".encode()
        bad(place, 5, message, "qb-backup", "restore", "--to", to, "--only", "tpl", data=hidden.joined())
        assert (to / "tpl" / f"{volume}.img").read_text() == "mine"
        assert not list(to.rglob("*partial*"))


def test_by_hand(place: Path, hidden: Archive, tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(hidden.joined())
    out = tmp_path / "out.img"
    text = (
        f"qb-unseal -q --passphrase-file {place}/passphrase vm7/. <{tmp_path}/archive | gzip -dcq | "
        f"qb-tarextract vm7/./root.img | qb-volwrite {out}"
    )
    done = run("bash", "-o", "pipefail", "-c", text)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == (place / "tpl" / "root.img").read_bytes()


def test_listed_by_qb_unseal(place: Path, plain: Archive) -> None:
    sizes = {name: len(data) for name, data in plain.members}
    lines = good(place, "qb-unseal", "--list", data=plain.joined()).decode().splitlines()
    assert lines[0] == f"qubes.xml\t1\t{sizes['qubes.xml.000']}"
    assert f"vm-templates/tpl/.\t1\t{sizes['vm-templates/tpl/..000']}" in lines
    document = json.loads(good(place, "qb-unseal", "--list", "--json", data=plain.joined()))
    assert (document["version"], document["backup_id"], document["compression"]) == (3, None, "gzip")


def test_the_header(place: Path, hidden: Archive) -> None:
    text = good(place, "qb-header", "read", "-", data=hidden.joined()).decode()
    assert text.splitlines() == [
        "version=3",
        "encrypted=True",
        "compressed=True",
        "compression-filter=gzip",
        "hmac-algorithm=sha512",
        "crypto-algorithm=aes-256-cbc",
    ]
    document = json.loads(good(place, "qb-header", "read", "--json", "-", data=hidden.joined()))
    assert document == {
        "version": 3,
        "backup_id": None,
        "compression": "gzip",
        "chunk_size": None,
        "manifest": False,
        "key": False,
        "signed": False,
        "base": None,
    }


def test_what_a_command_is_told(place: Path, plain: Archive) -> None:
    cmd = 'cat >/dev/null; echo "$QB_VERSION/$QB_BACKUP_ID/$QB_COMPRESSION"'
    out = good(place, "qb-unseal", "--to-command", cmd, "qubes.xml", data=plain.joined())
    assert out == b"3//gzip\n"


@pytest.mark.parametrize("words", [("--list",), ("--verify",), ("vm2/private.img",), ("--to-command", "cat")])
def test_refusing_version_3(words: tuple[str, ...], place: Path, hidden: Archive) -> None:
    """A user who got an old archive instead of today's."""
    asked = (("--require-version", "4"), b"the archive has version 3, not 4")
    for option, message in (asked, (("--expect-id", "1"), b"version 3, which knows no backup ID")):
        assert bad(place, 5, message, "qb-unseal", *option, *words, data=hidden.joined()) == b""


def test_other_programs_refuse_version_3(place: Path, hidden: Archive) -> None:
    asked, message = ("--require-version", "4"), b"the archive has version 3, not 4"
    bad(place, 5, message, "qb-backup", "verify", *asked, data=hidden.joined())
    bad(place, 5, message, "qb-header", "read", *asked, "-", data=hidden.joined())
    good(place, "qb-unseal", "--require-version", "3", "--list", data=hidden.joined())


def test_structure(hidden: Archive) -> None:
    done = run("qb-unseal", "--structure", data=hidden.joined())
    assert done.returncode == 4
    assert b"an archive of version 3: only version 4 has a structure to check" in done.stderr


def test_a_wrong_passphrase(tmp_path: Path, hidden: Archive) -> None:
    (tmp_path / "passphrase").write_text("another")
    (tmp_path / "passphrase").chmod(0o600)
    assert bad(tmp_path, 3, b"; or backup-header is damaged", "qb-unseal", "vm7/.", data=hidden.joined()) == b""


def test_version_2(place: Path, hidden: Archive) -> None:
    """Of Qubes OS 2, Beta 3: without a header."""
    bad(place, 4, b"an archive of version 2 or older", "qb-unseal", "--list", data=hidden.joined(hidden.members[2:]))


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


@pytest.mark.parametrize("name", ["vm14/root.img.001", "vm14/root.img.001.hmac", "vm7/..000", "qubes.xml.000.hmac"])
def test_a_flipped_bit(name: str, place: Path, hidden: Archive, tmp_path: Path) -> None:
    at = hidden.at(name)
    members = hidden.members.copy()
    members[at] = (name, flipped(members[at][1], 30))
    data = hidden.joined(members)
    for words in (("qb-unseal", "--verify"), ("qb-backup", "verify"), ("qb-backup", "restore", "--to", tmp_path)):
        done = program(place, *words, data=data)
        assert done.returncode == 4, done.stderr
        assert name.removesuffix(".hmac").encode() in done.stderr
    damaged = {"vm14/root.img.001": "win/root.img", "vm7/..000": "tpl/root.img"}
    assert not (tmp_path / damaged.get(name.removesuffix(".hmac"), "none")).exists()


def test_a_pair_less(place: Path, hidden: Archive) -> None:
    at = hidden.at("vm14/root.img.001")
    data = hidden.joined(hidden.members[:at] + hidden.members[at + 2 :])
    bad(place, 4, b"vm14/root.img.002 comes where vm14/root.img.001 is due", "qb-backup", "verify", data=data)
    data = hidden.joined(hidden.members[: at + 1] + hidden.members[at + 2 :])
    bad(place, 4, b"vm14/root.img.001.hmac is missing behind its chunk", "qb-backup", "verify", data=data)


def exchanged(archive: Archive, one: str, other: str) -> bytes:
    """Chunk and HMAC of one in the place of the other's, and the other way round."""
    members = archive.members.copy()
    for suffix in ("", ".hmac"):
        a, b = archive.at(one + suffix), archive.at(other + suffix)
        members[a], members[b] = (members[a][0], members[b][1]), (members[b][0], members[a][1])
    return archive.joined(members)


def test_pairs_exchanged(place: Path, hidden: Archive, plain: Archive, tmp_path: Path) -> None:
    """Qubes restores wrong data without a message. No HMAC shows it, but the content does."""
    data = exchanged(hidden, "vm14/root.img.001", "vm14/root.img.002")
    for words in (("verify",), ("restore", "--to", tmp_path / "a")):
        bad(place, 4, b"", "qb-backup", *words, data=data)
    assert not (tmp_path / "a" / "win" / "root.img").exists()
    data = exchanged(plain, "appvms/win/private.img.000", "appvms/work/private.img.000")
    assert good(place, "qb-unseal", "appvms/work/private.img", data=data)
    for words in (("verify",), ("restore", "--to", tmp_path / "b")):
        bad(
            place,
            4,
            b"qb-tarextract: error: the archive has no member appvms/work/private.img",
            "qb-backup",
            *words,
            data=data,
        )
    assert not (tmp_path / "b" / "work" / "private.img").exists()


def test_a_file_less(place: Path, plain: Archive) -> None:
    """Only the metadata shows that it must exist."""
    members = [member for member in plain.members if not member[0].startswith("appvms/work/private.img")]
    good(place, "qb-unseal", "--verify", data=plain.joined(members))
    message = b"appvms/work/private.img of work is not in the archive"
    bad(place, 4, message, "qb-backup", "verify", data=plain.joined(members))


def test_a_template_without_a_volume(place: Path, plain: Archive, tmp_path: Path) -> None:
    (tmp_path / "tpl").mkdir()
    (tmp_path / "tpl" / "root.img").write_bytes(bytes(512))
    name = "vm-templates/tpl/."
    members = [member for member in plain.members if not member[0].startswith(name)]
    maker = Maker(tmp_path, encrypted=False)
    members += maker.chunks(name, maker.inner(tmp_path / "tpl", name))
    data = plain.joined(members)
    bad(place, 4, b"qb-backup: error: vm-templates/tpl/./private.img is missing", "qb-backup", "verify", data=data)
    message = b"has no member vm-templates/tpl/./private.img"
    bad(place, 4, message, "qb-backup", "restore", "--to", tmp_path / "to", data=data)


def test_the_end_is_missing(place: Path, hidden: Archive, plain: Archive) -> None:
    """The end of a file: its encryption or its content shows it. The end of the archive: the metadata shows it."""
    last = hidden.at("dom0-home/user.000")
    bad(place, 4, b"dom0-home/user of dom0 is not in", "qb-backup", "verify", data=hidden.joined(hidden.members[:last]))
    data = hidden.joined()[:-40000]
    bad(place, 4, b"", "qb-backup", "verify", data=data)
    name = "appvms/win/root.img.000"
    at = plain.at(name)
    short = plain.members[at][1][:-11000]
    members = plain.members[:at] + plain.maker.pair(name, short) + plain.members[at + 2 :]
    bad(place, 4, b"", "qb-backup", "verify", data=plain.joined(members))


@pytest.mark.parametrize("compression", [None, "bzip2", "xz"])
def test_compressions(compression: str | None, place: Path, tmp_path: Path) -> None:
    made = Archive(place, True, Maker(place, compression=compression, algorithm="SHA1"))
    good(place, "qb-backup", "restore", "--to", tmp_path, "--only", "tpl", data=made.joined())
    assert (tmp_path / "tpl" / "root.img").read_bytes() == (place / "tpl" / "root.img").read_bytes()
