"""Projects: the verbs on a project's `dscache.toml` and `dscache.lock`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from dscache import fetching
from dscache.call import Call
from dscache.errors import InvalidFile, NotFound, UsageError
from dscache.events import Notice
from dscache.model import Dataset, Reference
from dscache.project import wanted
from dscache.project.lines import dataset_in
from dscache.project.lockfile import ANY, Lock, read, salvage
from dscache.relocking import Project, bytes_of, keep, learn, relock
from dscache.results import Fetched, Relocked
from dscache.settings import Settings
from dscache.settings.files import PROJECT_FILE
from dscache.store.counters import Counts
from dscache.view import Target
from dscache.wishes import Wish


def add(call: Call, names: Sequence[str]) -> Relocked:
    """Ask for datasets, and lock them; what is locked already stays as it is.

    Raises:
        NotFound: no registry in use has one of them. Nothing was changed, as with any error.
        UsageError: a name is malformed.
    """
    settings = call.settings
    project = Project(settings.project or os.getcwd(), settings.datasets)
    old = read(project.lock) or Lock()
    asked: dict[str, str | None] = {}
    for reference in map(Reference.parse, names):
        key = wanted.key_for(reference, project.wanted, old)
        asked[key] = wanted.version_for(reference, key, project.wanted)
    return relock(call, project.asking(asked), old, asked)


def remove(call: Call, names: Sequence[str]) -> Relocked:
    """Ask for datasets no longer; the project does not keep them from a prune any more.

    Raises:
        NotFound: the project does not ask for one of them.
    """
    project = _project(call.settings)
    old = read(project.lock) or Lock()
    gone = [wanted.key_of(name, project.wanted) for name in names]
    return relock(call, project.asking(dict.fromkeys(gone)), old, ())


def lock(call: Call) -> Relocked:
    """Ask the registries anew for all that the project asks for, and write what they say.

    A dataset stays with the registry it was locked from, and as it is where that cannot say; its
    content under a version that is locked never changes.

    Raises:
        NotFound: no registry has a dataset that was not locked before.
        TransferError: a registry that might have it cannot be read.
    """
    project = _project(call.settings)
    try:
        old = read(project.lock) or Lock()
    except InvalidFile as error:
        if "format" in error.facts:  # who wrote that knows better
            raise
        call.emit(Notice(f"{error}; what can be used of it is kept"))
        old = Lock(salvage(bytes_of(project.lock) or b""))
    return relock(call, project, old, project.wanted)


def sync(call: Call, target: Target | None = None, *, locked: bool = False) -> list[Fetched]:
    """Bring all that is locked, in `target` if there is one; errors stand in the results.

    What the project asks for and the lock lacks is locked first, or refused with `locked`.

    Raises:
        NotFound: with `locked`, the lock is not what the project asks for; nothing was fetched.
        UsageError: two datasets of one name would stand in one folder.
        As `lock`.
    """
    project = _project(call.settings)
    found = read(project.lock) or Lock()
    if differing := _differing(project, found):
        if locked:
            raise _out_of_date(project, differing)
        _tell(call, relock(call, project, found, ()))
        found = read(project.lock) or Lock()
    datasets = {line.name: dataset_in(found, line, call.settings) for line in found}
    wishes = {dataset.mark: Wish(dataset) for dataset in datasets.values()}
    if target:
        _refuse_same_names(wish.dataset for wish in wishes.values())
    keep(call, project, datasets.values())
    results = fetching.fetch(call, list(wishes.values()), target)
    _count_hits(call, results.values())
    brought = [wish.dataset for wish in results if results[wish].status in ("downloaded", "linked")]
    if brought:
        _tell_withdrawn(call, brought)
    if not locked:
        learn(call, project, found)
    return [results[wishes[datasets[name].mark]] for name in sorted(datasets)]


def _project(settings: Settings) -> Project:
    if settings.project is None:
        raise NotFound(
            f"there is no {PROJECT_FILE} here, nor in a folder above",
            hint="`dscache add NAME` makes one in this folder",
        )
    return Project(settings.project, settings.datasets)


def _differing(project: Project, found: Lock) -> list[str]:
    """What the project asks for and the lock has not, and the other way round, in words."""
    wrong = []
    for key, version in project.wanted.items():
        line = found.get(key)
        asked = key if version == ANY else f"{key}@{version}"
        if line is None:
            wrong.append(f"{asked} is not locked")
        elif not line.fits(version):
            wrong.append(f"{asked} is locked as {line.entry.version}")
    unasked = (line.name for line in found if line.name not in project.wanted)
    return wrong + [f"{name} is locked and not asked for" for name in unasked]


def _out_of_date(project: Project, differing: Sequence[str]) -> NotFound:
    missing = "" if os.path.exists(project.lock) else ", which is not there"
    return NotFound(
        f"{project.lock}{missing} is not what {PROJECT_FILE} asks for: {', '.join(differing)}",
        hint="`dscache lock` brings it up to date; nothing was fetched",
        differing=list(differing),
    )


def _refuse_same_names(datasets: Iterable[Dataset]) -> None:
    known: dict[str, Reference] = {}
    for dataset in datasets:
        other = known.setdefault(dataset.name, dataset.reference)
        if other != dataset.reference:
            raise UsageError(
                f"{other} and {dataset.reference} would stand in one folder",
                hint="sync without --into, and fetch them into folders of your choice",
            )


def _tell(call: Call, done: Relocked) -> None:
    shown = [f"{each.name} {each.before or '-'} -> {each.after or '-'}" for each in done.changed]
    if shown:
        call.emit(Notice(f"{done.path} is brought up to date: {', '.join(shown)}"))


def _tell_withdrawn(call: Call, datasets: Iterable[Dataset]) -> None:
    """Say which of these their publishers have withdrawn since they were locked.

    A courtesy, which no registry that is gone may hold up: each is asked once more if it has
    answered, and without retries.
    """
    silent: set[str] = set()
    with Call(call.settings.override(retries=0), call.emit) as asking:
        for dataset in datasets:
            if dataset.yanked or dataset.registry in silent:
                continue
            now = asking.lookup.today(dataset)
            if now is None:
                silent.add(dataset.registry)
            elif now.yanked:
                call.emit(fetching.withdrawn(now))


def _count_hits(call: Call, results: Iterable[Fetched]) -> None:
    """Those with a lease are counted when it is taken; here that is done for all at once."""
    if call.rooted:
        sizes = [found.size for found in results if found.status == "cached"]
        call.store.counters.add(Counts(hits=len(sizes), saved=sum(sizes)))
