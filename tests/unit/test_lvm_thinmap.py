"""Maps from the output of thin_dump; also with the real thin_restore and thin_dump, on files."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, need

from qbtools.errors import Failed
from qbtools.formats.volumestream import MAX_EXTENTS
from qbtools.volumes.lvm import thinmap

CHUNK = 64 << 10
HEAD = '<superblock uuid="" time="1" transaction="2" version="2" data_block_size="128" nr_data_blocks="0">\n'
TAIL = "</superblock>\n"


def device(number: int, mappings: str, mapped: int) -> str:
    return (
        f'  <device dev_id="{number}" mapped_blocks="{mapped}" transaction="0" creation_time="0" snap_time="1">\n'
        f"{mappings}  </device>\n"
    )


def run(begin: int, length: int) -> str:
    return f'    <range_mapping origin_begin="{begin}" data_begin="7" length="{length}" time="0"/>\n'


def one(block: int) -> str:
    return f'    <single_mapping origin_block="{block}" data_block="9" time="0"/>\n'


def parse(text: str, size: int = 1 << 30, number: int = 3) -> list[tuple[int, int]]:
    return list(thinmap.parse(io.BytesIO(text.encode()), number, size))


def test_runs_and_single_blocks() -> None:
    text = HEAD + device(3, one(0) + run(1, 2) + one(10) + run(16, 4), 8) + TAIL
    assert parse(text) == [(0, 3 * CHUNK), (10 * CHUNK, CHUNK), (16 * CHUNK, 4 * CHUNK)]


def test_data_beyond_the_volume_is_left_out() -> None:
    text = HEAD + device(3, run(0, 4) + run(100, 5), 9) + TAIL
    assert parse(text, size=3 * CHUNK + 512) == [(0, 3 * CHUNK + 512)]


def test_a_volume_without_data() -> None:
    assert parse(HEAD + device(3, "", 0) + TAIL) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEAD,
        HEAD + TAIL,
        HEAD + device(3, run(0, 1), 1),
        HEAD + device(4, run(0, 1), 1) + TAIL,
        HEAD + device(3, run(0, 1), 1) + device(4, "", 0) + TAIL,
        HEAD + device(3, run(0, 1), 2) + TAIL,
        HEAD + device(3, run(5, 1) + run(0, 1), 2) + TAIL,
        HEAD + device(3, run(0, 0), 0) + TAIL,
        HEAD + device(3, run(-1, 1), 1) + TAIL,
        HEAD + device(3, one(0) + '    <ref name="1"/>\n', 1) + TAIL,
        HEAD + '<def name="1">' + one(0) + "</def>" + device(3, "", 0) + TAIL,
        HEAD + one(0) + device(3, "", 1) + TAIL,
        HEAD + device(3, '    <single_mapping data_block="9" time="0"/>\n', 1) + TAIL,
        HEAD + device(3, one(0).replace('"0"', '"x"'), 1) + TAIL,
        (HEAD + device(3, one(0), 1) + TAIL).replace("<superblock", "<other").replace("</superblock", "</other"),
        (HEAD + device(3, one(0), 1) + TAIL).replace('data_block_size="128"', ""),
    ],
)
def test_what_is_no_map(text: str) -> None:
    with pytest.raises(Failed, match="^thin_dump printed a map that cannot be parsed: "):
        parse(text)


MILLION = f"""
import io, sys
sys.path.insert(0, {str(ROOT)!r})
from qbtools.formats.volumestream import MAX_EXTENTS
from qbtools.volumes.lvm import thinmap

class Dump(io.RawIOBase):
    def __init__(self, pieces):
        self.pieces, self.held = pieces, b""
    def read(self, size=-1):
        while len(self.held) < size and (piece := next(self.pieces, b"")):
            self.held += piece
        data, self.held = self.held[:size], self.held[size:]
        return data

def pieces():
    yield b'<superblock data_block_size="128"><device dev_id="3" mapped_blocks="%d">' % MAX_EXTENTS
    for first in range(0, MAX_EXTENTS, 512):
        places = range(first, min(first + 512, MAX_EXTENTS))
        yield b"".join(b'<single_mapping origin_block="%d" data_block="9" time="0"/>\\n' % (3 * n) for n in places)
    yield b"</device></superblock>"

extents = thinmap.parse(Dump(pieces()), 3, 3 * MAX_EXTENTS << 16)
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(len(extents), extents.data, peak)
"""


def test_a_million_mappings_take_the_memory_of_their_map_alone() -> None:
    done = subprocess.run([sys.executable, "-c", MILLION], capture_output=True, text=True, check=True)
    count, data, kilobytes = map(int, done.stdout.split())
    assert (count, data) == (MAX_EXTENTS, MAX_EXTENTS * CHUNK)
    assert kilobytes < 60 << 10


def test_forty_volumes_in_one_pool(tmp_path: Path) -> None:
    """The real tools: each volume's map is found again among the others, blocks that they share included."""
    need("thin_restore", "thin_dump")
    maps = {
        number: [(place * 4 + number, 1 + place % 3) for place in range(0, 1500, 1 + number % 5)]
        for number in range(1, 41)
    }
    xml = tmp_path / "pool.xml"
    with xml.open("w") as file:
        file.write(HEAD.replace('nr_data_blocks="0"', 'nr_data_blocks="100000"'))
        for number, ranges in maps.items():
            text = "".join(run(begin, length) for begin, length in ranges)
            file.write(device(number, text, sum(length for _, length in ranges)))
        file.write(TAIL)
    metadata = tmp_path / "metadata"
    with metadata.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["thin_restore", "-i", xml, "-o", metadata], check=True, capture_output=True)
    for number, ranges in list(maps.items())[::6]:
        argv = ["thin_dump", "--dev-id", str(number), metadata]
        dump = subprocess.run(argv, check=True, capture_output=True).stdout
        expected = [(begin * CHUNK, length * CHUNK) for begin, length in ranges]
        assert list(thinmap.parse(io.BytesIO(dump), number, 1 << 40)) == joined(expected)


def joined(extents: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Joins extents that touch."""
    result: list[tuple[int, int]] = []
    for offset, length in extents:
        if result and sum(result[-1]) == offset:
            result[-1] = (result[-1][0], result[-1][1] + length)
        else:
            result.append((offset, length))
    return result
