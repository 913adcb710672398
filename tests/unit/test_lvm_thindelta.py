"""What may differ between two thin volumes, from the output of thin_delta; also of the real one, on a file."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from support import need

from qbtools.errors import Failed
from qbtools.volumes.lvm import thindelta

CHUNK = 64 << 10
HEAD = '<superblock uuid="" time="2" transaction="3" data_block_size="128" nr_data_blocks="1000">\n'
DIFF = '  <diff left="1" right="2">\n'
END = "  </diff>\n</superblock>\n"
GOOD = """    <same begin="0" length="4"/>
    <different begin="4" length="1"/>
    <same begin="5" length="3"/>
    <left_only begin="10" length="2"/>
    <right_only begin="12" length="1"/>
    <right_only begin="20" length="1"/>
"""
RESTORED = """<superblock uuid="" time="2" transaction="3" version="2" data_block_size="128" nr_data_blocks="1000">
  <device dev_id="1" mapped_blocks="8" transaction="0" creation_time="0" snap_time="2">
    <range_mapping origin_begin="0" data_begin="0" length="4" time="0"/>
    <single_mapping origin_block="4" data_block="50" time="2"/>
    <range_mapping origin_begin="5" data_begin="5" length="3" time="0"/>
  </device>
  <device dev_id="2" mapped_blocks="9" transaction="1" creation_time="1" snap_time="1">
    <range_mapping origin_begin="0" data_begin="0" length="8" time="0"/>
    <single_mapping origin_block="20" data_block="60" time="2"/>
  </device>
</superblock>
"""


def parse(
    text: str, size: int = 1 << 30, block: int = CHUNK, numbers: tuple[int, int] = (1, 2)
) -> list[tuple[int, int]]:
    return list(thindelta.parse(io.BytesIO(text.encode()), numbers, size, block))


def test_ranges() -> None:
    assert parse(HEAD + DIFF + GOOD + END) == [(4 * CHUNK, CHUNK), (10 * CHUNK, 3 * CHUNK), (20 * CHUNK, CHUNK)]
    assert parse(HEAD + DIFF + END) == []


def test_blocks_larger_and_smaller_than_chunks() -> None:
    text = HEAD + DIFF + GOOD + END
    assert parse(text, block=1 << 20) == [(0, 2 << 20)]
    assert parse(text, block=4096) == parse(text)


def test_what_is_behind_the_end_is_left_out() -> None:
    assert parse(HEAD + DIFF + GOOD + END, size=10 * CHUNK + 512) == [(4 * CHUNK, CHUNK), (10 * CHUNK, 512)]


def test_every_cut_is_noticed() -> None:
    text = (HEAD + DIFF + GOOD + END).rstrip()
    for at in range(len(text)):
        with pytest.raises(Failed, match="^thin_delta printed something that cannot be parsed: "):
            parse(text[:at])


@pytest.mark.parametrize(
    "text",
    [
        "<superblock data_block_size='128'/>",
        "<diff left='1' right='2'/>",
        HEAD + '<diff left="2" right="1">' + END,
        HEAD + '<diff left="1">' + END,
        HEAD + DIFF + "</diff>" + DIFF + END,
        HEAD + DIFF + DIFF + "</diff>" + END,
        HEAD + DIFF + '<same begin="0"/>' + END,
        HEAD + DIFF + '<same begin="5" length="1"/><different begin="4" length="1"/>' + END,
        HEAD + DIFF + '<same begin="5" length="2"/><different begin="6" length="1"/>' + END,
        HEAD + DIFF + '<different begin="4" length="0"/>' + END,
        HEAD + DIFF + '<different begin="-4" length="8"/>' + END,
        HEAD + DIFF + '<different begin=" 4" length="8"/>' + END,
        HEAD + DIFF + '<different begin="99999999999999999999999" length="8"/>' + END,
        HEAD + DIFF + '<odd begin="4" length="8"/>' + END,
        HEAD + DIFF + '<same begin="4" length="8"><different begin="5" length="1"/></same>' + END,
        HEAD.replace("128", "0") + DIFF + END,
        HEAD.replace("128", "x") + DIFF + END,
        HEAD + DIFF + END + "<superblock/>",
    ],
)
def test_odd_output(text: str) -> None:
    with pytest.raises(Failed, match="^thin_delta printed something that cannot be parsed: "):
        parse(text)


@pytest.mark.parametrize(("numbers", "expected"), [((1, 2), [4, 20]), ((2, 1), [4, 20]), ((1, 1), [])])
def test_the_real_program(tmp_path: Path, numbers: tuple[int, int], expected: list[int]) -> None:
    need("thin_restore", "thin_delta")
    (tmp_path / "xml").write_text(RESTORED)
    with (tmp_path / "metadata").open("wb") as file:
        file.truncate(4 << 20)
    subprocess.run(
        ["thin_restore", "-i", tmp_path / "xml", "-o", tmp_path / "metadata"], check=True, capture_output=True
    )
    words = ["thin_delta", "--thin1", str(numbers[0]), "--thin2", str(numbers[1]), tmp_path / "metadata"]
    text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert parse(text, numbers=numbers) == [(at * CHUNK, CHUNK) for at in expected]
