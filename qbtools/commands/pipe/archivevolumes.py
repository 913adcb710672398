"""qb-tarextract --volumes: the volumes of a directory that is one archive."""

from __future__ import annotations

from contextlib import ExitStack

from qbtools import progress
from qbtools.commands.cli import Invocation
from qbtools.commands.pipe import volumeoptions
from qbtools.errors import UsageError
from qbtools.formats import chunks
from qbtools.volumes import locate
from qbtools.volumes.together import Together


def extract(call: Invocation) -> None:
    """Fills the target of each ROUTE from the member of DIRECTORY that its volume is."""
    directory = call.options["DIRECTORY"]
    problem = chunks.name_problem(directory, final_dot=True)
    if problem:
        raise UsageError(f"{directory}: {problem}")
    routes = _routes(call.options["ROUTE"])
    how = volumeoptions.filling(call)
    reader = call.stdin()
    if call.options["--parents"]:
        for word in routes.values():
            locate.make_parents(word)
    with ExitStack() as stack:
        targets = {
            f"{directory}/{volume}.img": stack.enter_context(locate.open_target(word, how))
            for volume, word in routes.items()
        }
        work = Together(reader, targets, call.note)
        display = progress.wanted(call.options["--progress"], call.quiet)
        with progress.shown(lambda: work.done, lambda: None, lambda: work.label, display, end=True):
            sizes = work.fill()
            work.commit(call.warn)
    if call.options["--print-size"]:
        lines = (f"{size}\t{volume}\n" for volume, size in zip(routes, map(sizes.__getitem__, targets), strict=True))
        call.stdout(binary=False).write("".join(lines).encode())


def _routes(words: list[str]) -> dict[str, str]:
    """The target of each volume. UsageError for a word that is no ROUTE, and for a volume that occurs twice."""
    routes: dict[str, str] = {}
    for word in words:
        volume, _, target = word.partition("=")
        if not target or "/" in volume or chunks.path_problem(volume):
            raise UsageError(f"{word} is not VOLUME=TARGET")
        if volume in routes:
            raise UsageError(f"the volume {volume} has two targets")
        routes[volume] = target
    return routes
