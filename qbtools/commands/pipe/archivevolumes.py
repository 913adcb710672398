"""qb-tarextract --volumes: extracts the volumes of an archive of a whole directory."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

from qbtools import progress
from qbtools.commands.cli import Invocation
from qbtools.commands.pipe import volumeoptions
from qbtools.errors import Refused, UsageError
from qbtools.formats import chunks
from qbtools.volumes import locate
from qbtools.volumes.spots import Apart
from qbtools.volumes.together import Together


def extract(call: Invocation) -> None:
    """Fills the target of each ROUTE from the member of DIRECTORY for its volume."""
    directory = call.options["DIRECTORY"]
    problem = chunks.name_problem(directory, final_dot=True)
    if problem:
        raise UsageError(f"{directory}: {problem}")
    routes = _routes(call.options["ROUTE"])
    _refuse_same(routes.values())
    how = volumeoptions.filling(call)
    reader = call.stdin()
    with ExitStack() as stack:
        files = [word for word in routes.values() if call.options["--parents"] and locate.file_path(word) is not None]
        stack.enter_context(volumeoptions.Parents(files))
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


def _refuse_same(words: Iterable[str]) -> None:
    apart = Apart()
    for word in words:
        if (other := apart.add(locate.spot(word), word)) is not None:
            raise Refused(f"{other} and {word} are the same volume")


def _routes(words: list[str]) -> dict[str, str]:
    """The target of each volume. UsageError if a word is not a ROUTE, or a volume occurs twice."""
    routes: dict[str, str] = {}
    for word in words:
        volume, _, target = word.partition("=")
        if not target or "/" in volume or chunks.path_problem(volume):
            raise UsageError(f"{word} is not VOLUME=TARGET")
        if volume in routes:
            raise UsageError(f"the volume {volume} has two targets")
        routes[volume] = target
    return routes
