"""Pruning: what may go from the cache. Planned first, shown, then executed as it was planned.

Nothing goes that a pin, a project, a living process or a record that cannot be read may need. No
lock is held: what is about to go is said first (`store.removals`), and then looked at once more.
"""

from dscache.pruning.planning import plan
from dscache.pruning.policy import Limits, Policy
from dscache.pruning.removing import execute

__all__ = ["Limits", "Policy", "execute", "plan"]
