"""Views: the files of a dataset under the names people know, linked, not copied without need.

Inside the cache a view is a folder that appears with one rename (`cached`). In a folder of the
user, files appear one by one, each with one rename, and nothing of the user's is replaced unless
asked for (`placing`). What both share, how one file comes to its name, is in `links`.
"""

from dscache.view.cached import LOOKED_AT, build, is_sound, is_whole, sync
from dscache.view.placing import Placed, Target, place

__all__ = [
    "LOOKED_AT",
    "Placed",
    "Target",
    "build",
    "is_sound",
    "is_whole",
    "place",
    "sync",
]
