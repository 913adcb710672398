"""Runs the vectors of backup-header texts."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from vectors import vectorfile

from qbtools.errors import QbError
from qbtools.formats import header

FOLDER = Path(__file__).parent / "header"
VECTORS = vectorfile.read_all(FOLDER)


@pytest.mark.parametrize("name", VECTORS)
def test_vector(name: str) -> None:
    said, data = VECTORS[name]
    said = dict(said)
    del said["about"]
    status = int(said.pop("status"))
    if status:
        with pytest.raises(QbError) as caught:
            header.parse(data)
        assert caught.value.status == status
        assert caught.value.message.startswith(said["message"])
    else:
        parsed = header.parse(data)
        assert {key: str(getattr(parsed, key)) for key in said} == said
        assert set(said) == set(header.BackupHeader._fields)


def test_they_are_what_the_generator_writes() -> None:
    generator = runpy.run_path(str(FOLDER / "generate.py"))
    assert generator["vectors"]() == VECTORS
