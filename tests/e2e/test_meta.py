"""qb-meta as a program: its status, stderr and stdout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import bash, run

LINES = b"work\troot\t4096\nwork\tprivate\t8192\nbank\troot\t512\n"
LIST = (
    b"work\tStandaloneVM\troot\tvm1/root.img\t4096\n"
    b"work\tStandaloneVM\tprivate\tvm1/private.img\t8192\n"
    b"bank\tStandaloneVM\troot\tvm2/root.img\t512\n"
)
CAME = b"came\tqubes.xml\t-\ncame\tvm1/root.img\t4096\ncame\tvm1/private.img\t-\ncame\tvm2/root.img\t512\nend\n"


def xml() -> bytes:
    done = run("qb-meta", "create", data=LINES)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def test_create_then_list_in_a_pipe() -> None:
    done = bash("qb-meta create | qb-meta list", data=LINES)
    assert (done.returncode, done.stdout, done.stderr) == (0, LIST, b"")


def test_files_instead_of_standard_input(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_bytes(LINES)
    document = tmp_path / "qubes.xml"
    document.write_bytes(run("qb-meta", "create", lines).stdout)
    assert run("qb-meta", "list", document).stdout == LIST
    assert run("qb-meta", "list", "-", data=xml()).stdout == LIST
    done = run("qb-meta", "list", tmp_path / "none")
    assert done.returncode == 1
    assert b"none: No such file or directory" in done.stderr


def test_list_as_json() -> None:
    done = run("qb-meta", "list", "--json", data=xml())
    found = json.loads(done.stdout)
    assert [one["name"] for one in found["domains"]] == ["work", "bank"]
    assert found["domains"][0]["class"] == "StandaloneVM"
    assert found["domains"][0]["path"] == "vm1/"
    assert found["domains"][1]["files"] == [{"volume": "root", "archive_name": "vm2/root.img", "size": 512}]


def test_a_warning_does_not_change_the_status() -> None:
    done = run("qb-meta", "create", data=b"work\tdata\t5\n")
    assert done.returncode == 0
    assert (
        done.stderr == b"qb-meta: warning: Qubes OS will not restore the volume data of work, only root and private\n"
    )
    assert run("qb-meta", "create", "-q", data=b"work\tdata\t5\n").stderr == done.stderr


def test_verbose_says_what_was_found() -> None:
    assert run("qb-meta", "create", "-v", data=LINES).stderr == b"qb-meta: 2 domains, 3 volumes\n"
    assert run("qb-meta", "list", "-v", data=xml()).stderr == b"qb-meta: 2 of 3 domains are saved\n"
    done = run("qb-meta", "check", "-v", data=LIST + CAME)
    assert (done.returncode, done.stderr) == (0, b"qb-meta: 4 files found, none is missing\n")


def test_check_in_one_pass(tmp_path: Path) -> None:
    """With qb-unseal --to-command: one command per file, and no temporary file."""
    document = tmp_path / "qubes.xml"
    document.write_bytes(xml())
    text = """
    { qb-meta list "$XML" && for name in vm1/root.img vm1/private.img vm2/root.img; do
          printf 'came\\t%s\\t-\\n' "$name"
      done && echo end; } | qb-meta check
    """
    done = bash(text, XML=str(document))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    done = bash(text.replace("vm2/root.img", ""), XML=str(document))
    assert done.returncode == 4
    assert done.stderr == b"qb-meta: error: vm2/root.img of bank is not in the archive\n"
    done = bash(text.replace("printf", 'test "$name" != vm2/root.img && printf'), XML=str(document))
    assert done.returncode == 4
    assert b"ends without its end line" in done.stderr


def test_check_by_hand(tmp_path: Path) -> None:
    document = tmp_path / "qubes.xml"
    document.write_bytes(xml())
    done = run("qb-meta", "check", "--metadata", document, data=CAME)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    done = run("qb-meta", "check", "--metadata", document, data=CAME.replace(b"4096", b"4097"))
    assert done.returncode == 4
    assert done.stderr == b"qb-meta: error: vm1/root.img is a volume of 4097 bytes, but qubes.xml says 4096\n"
    done = run("qb-meta", "check", "--metadata", document, data=LIST + CAME)
    assert done.returncode == 4


@pytest.mark.parametrize("command", ["create", "list", "check"])
@pytest.mark.parametrize("data", [b"", b"\0", b"\xff" * 10000, b"\x1b[2J\n"])
def test_garbage_is_damage_and_prints_nothing(command: str, data: bytes) -> None:
    done = run("qb-meta", command, data=data)
    assert (done.returncode, done.stdout) == (4, b"")
    assert done.stderr.startswith(b"qb-meta: error: ")
    assert done.stderr.count(b"\n") == 1
    assert b"\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b">work<", b"><", b'a domain is called ""'),
        (b">work<", b">w&#27;[2J<", b"not well-formed"),
        (b">vm1/<", b">/etc/<", b"backup-path"),
        (b'"root"', b'"-rf"', b'a volume is called "-rf"'),
        (b"<qubes>", b'<!DOCTYPE qubes [<!ENTITY a "b">]><qubes>', b"document type"),
        (b"qubes>", b"QubesVmCollection>", b"qubes.xml has no domain"),
        (b"</qubes>", b"", b"not well-formed"),
    ],
)
def test_hostile_metadata(old: bytes, new: bytes, message: bytes) -> None:
    data = xml()
    assert old in data
    done = run("qb-meta", "list", data=data.replace(old, new))
    assert (done.returncode, done.stdout) == (4, b"")
    assert message in done.stderr


@pytest.mark.parametrize(
    ("name", "shown", "made"),
    [(b"../x", b'"../x"', b"vm.._x"), (b"-rf", b'"-rf"', b"vm-rf"), (b"w&#10;x", b'"w\\nx"', b"w_x")],
)
def test_a_hostile_name_becomes_a_harmless_one(name: bytes, shown: bytes, made: bytes) -> None:
    done = run("qb-meta", "list", data=xml().replace(b">work<", b">" + name + b"<"))
    assert done.returncode == 0
    assert done.stderr.startswith(b"qb-meta: warning: the domain name " + shown)
    assert done.stderr.endswith(b": the domain is renamed " + made + b"\n") and done.stderr.count(b"\n") == 1
    assert made in {line.split(b"\t")[0] for line in done.stdout.splitlines()}


def test_a_large_attribute_is_refused() -> None:
    done = run("qb-meta", "list", data=b'<qubes a="' + b"x" * (10 << 20) + b'"/>')
    assert (done.returncode, done.stdout) == (4, b"")
    assert b"an attribute of more than 1048576 characters" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [(), ("make",), ("create", "--json"), ("list", "--metadata", "x"), ("list", "a", "b"), ("create", "-z")],
)
def test_usage(arguments: tuple[str, ...]) -> None:
    done = run("qb-meta", *arguments, data=LINES)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"hint: see qb-meta --help" in done.stderr


def test_a_reader_that_leaves() -> None:
    data = b"".join(b"d%d\troot\t5\n" % number for number in range(3000))
    done = bash("qb-meta create | { read -r _; exec <&-; sleep 0.5; }; echo ${PIPESTATUS[0]}", data=data)
    assert done.stdout == b"141\n"


def test_no_space() -> None:
    done = bash("qb-meta create > /dev/full", data=LINES)
    assert done.returncode == 1
    assert b"qb-meta: error: cannot write to standard output: No space left on device" in done.stderr
