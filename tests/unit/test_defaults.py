"""The defaults of a host as lines."""

from __future__ import annotations

import io

import pytest

from qbtools.domains import defaults
from qbtools.domains.defaults import Defaults
from qbtools.errors import Damaged, Truncated
from qbtools.streams import Reader

FULL = Defaults(
    "fedora-42",
    "sys-firewall",
    "default-dvm",
    ("6.6.68-1.fc37", "pvgrub2"),
    ("vm-pool", "qubes/pool00"),
    (".", "_tdata"),
    ("tpm", "firewall.xml"),
)


def read(text: bytes) -> Defaults:
    return defaults.read(Reader(io.BytesIO(text)))


@pytest.mark.parametrize("one", [FULL, Defaults(), Defaults(netvm="n"), Defaults(kernels=("k",))])
def test_what_is_written_is_read_again(one: Defaults) -> None:
    assert read(one.to_lines().encode()) == one


def test_the_lines() -> None:
    assert FULL.to_lines() == (
        "template\tfedora-42\nnetvm\tsys-firewall\ndispvm\tdefault-dvm\n"
        "kernel\t6.6.68-1.fc37\nkernel\tpvgrub2\npool\tvm-pool\npool\tqubes/pool00\n"
        "without\t.\nwithout\t_tdata\nfurther\ttpm\nfurther\tfirewall.xml\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"template", "no newline"),
        (b"template\n", "line 1 is not a key"),
        (b"template\ta\tb\n", "line 1 is not a key"),
        (b"\n", "line 1 is not a key"),
        (
            b"color\tred\n",
            "line 1 is not a key (template, netvm, dispvm, kernel, pool, without, further) and its value",
        ),
        (b"template\t\n", "a domain's name has"),
        (b"netvm\t-rf\n", "a domain's name has"),
        (b"netvm\ta\nnetvm\tb\n", "line 2: netvm occurs twice"),
        (b"pool\ta\npool\ta\n", "line 2: pool occurs twice"),
        (b"pool\tdefault\n", "line 1: pool default"),
        (b"kernel\t-x\n", "line 1: kernel -x"),
        (b"without\t\n", "line 1: without : no name of a domain contains this text"),
        (b"without\t+\n", "line 1: without +: no name of a domain contains this text"),
        (b"without\t.\nwithout\t.\n", "line 2: without occurs twice"),
        (b"further\ttpm\nfurther\ttpm\n", "line 2: further occurs twice"),
        (b"further\t../tpm\n", "line 1: further ../tpm: no further file that a host takes back can be called that"),
        (b"further\troot.img\n", "line 1: further root.img"),
        (b"further\tempty\n", "line 1: further empty"),
        (b"further\t*\n", "line 1: further *"),
        (b"kernel\ta b\n", "line 1: kernel a b"),
        (b"kernel\t\xff\n", "printable ASCII"),
    ],
)
def test_refused(text: bytes, message: str) -> None:
    with pytest.raises(Damaged) as caught:
        read(text)
    assert message in caught.value.message
    assert isinstance(caught.value, Truncated) == (message == "no newline")
