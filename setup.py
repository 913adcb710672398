"""Packaging: the programs of bin/, the man pages, and what they need. The version stands in qbtools/__init__.py."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def version() -> str:
    """__version__ of the package, read as text: nothing is imported while building."""
    match = re.search(r'^__version__ = "([^"]+)"$', (ROOT / "qbtools/__init__.py").read_text("utf-8"), re.MULTILINE)
    if match is None:
        raise SystemExit("qbtools/__init__.py names no version")
    return match[1]


def files(pattern: str) -> list[str]:
    """Paths below this directory, as setuptools wants them: relative."""
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))


# What setuptools builds goes to a directory that is removed when this process ends, so `pip install .` leaves no build/
# and no .egg-info in the checkout. A source archive needs its .egg-info beside the sources.
BUILT = tempfile.TemporaryDirectory(prefix="qbtools-build-")
ELSEWHERE = {"build": {"build_base": BUILT.name}, "egg_info": {"egg_base": BUILT.name}}


def completions() -> list[str]:
    """Completion for bash, made from the help texts; a source archive has the program that makes it instead."""
    if "sdist" in sys.argv:
        return []
    place = Path(BUILT.name, "completions")
    place.mkdir()
    subprocess.run([sys.executable, "-Bm", "qbtools.commands.completion", place], cwd=ROOT, check=True)
    return sorted(os.path.relpath(path, ROOT) for path in place.iterdir())


setup(
    options={} if "sdist" in sys.argv else ELSEWHERE,
    name="qbtools",
    version=version(),
    description="Save and restore the volumes of virtual machines in the Qubes OS backup format",
    long_description=(ROOT / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    author="qbtools authors",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["qbtools", "qbtools.*"]),
    scripts=files("bin/qb-*"),
    data_files=[(f"share/man/man{section}", files(f"man/*.{section}")) for section in "157"]
    + [("share/bash-completion/completions", completions())],
    install_requires=["cryptography>=38", "scrypt>=0.8.20", "docopt>=0.6.2"],
    extras_require={
        "progress": ["tqdm"],
        "test": ["hypothesis", "mypy", "pytest>=7", "pytest-xdist", "ruff", "virtme-ng"],
    },
    classifiers=[
        "Environment :: Console",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: System :: Archiving :: Backup",
    ],
)
