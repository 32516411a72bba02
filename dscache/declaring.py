"""Declaring: the verbs on what a project asks for. `Cache` has them beside those that fetch."""

from __future__ import annotations

from dscache.asking import Asking
from dscache.events import Progress
from dscache.results import Relocked


class Declaring(Asking):
    """The project of the current folder: its `dscache.toml` and its `dscache.lock`.

    A verb that raises has changed neither file.
    """

    def add(self, *names: str, progress: Progress | None = None) -> Relocked:
        """Ask for datasets in `dscache.toml`, made in the current folder if there is none; lock.

        Args:
            names: `[registry/]name[@version]`; without a version any is fine, and the lock says
                which one it is.
            progress: called with notices; default: they are logged.

        Raises:
            UsageError: a name is malformed.
            NotFound: no registry in use has one of them.
            TransferError: a registry that might have it cannot be read.
            InvalidFile: one of the two files, or a registry, is malformed.
            StorageError: the project's folder cannot be written.
        """
        from dscache import projects

        with self._asking_now(progress) as call:
            return projects.add(call, names)

    def remove(self, *names: str, progress: Progress | None = None) -> Relocked:
        """Ask for datasets no longer. What was fetched stays, until a prune takes it.

        Raises:
            NotFound: there is no project, or it does not ask for one of them.
            UsageError, InvalidFile, StorageError: as `add`.
        """
        from dscache import projects

        with self._asking_now(progress) as call:
            return projects.remove(call, names)

    def lock(self, *, progress: Progress | None = None) -> Relocked:
        """Ask the registries anew for all that `dscache.toml` says, and write `dscache.lock`.

        What a registry cannot say just now stays as it was locked, with a notice; so does what has
        other content under the version that was locked.

        Raises:
            NotFound: there is no project, or what was never locked is not to be found.
            TransferError, InvalidFile, StorageError: as `add`.
        """
        from dscache import projects

        with self._asking_now(progress) as call:
            return projects.lock(call)
