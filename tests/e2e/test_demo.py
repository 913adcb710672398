"""The demo does what it shows, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

from support import ROOT, need, run


def test_the_demo_runs_and_cleans_up(tmp_path: Path) -> None:
    need("sshd", "ssh", "ssh-keygen", "gzip")
    done = run(ROOT / "tests/demo", QB_READY="1", TMPDIR=str(tmp_path), timeout=300)
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b""), text
    assert text.endswith("\nAll of it came out as it must.\n")
    assert text.count("\n$ ") > 15 and "(status 4)" in text and "(status 3)" in text
    assert list(tmp_path.iterdir()) == []
