"""Views: the files of a dataset under the names people know, linked, not copied without need.

Inside the cache a view is a folder that appears with one rename (`cached`). In a folder of the
user files appear one by one, each in one step, and nothing of the user's is replaced unless asked
for (`placing`, which looks first: `room`). What both share: what there is to place (`items`), the
folders that this needs (`outline`), and how one file comes to its name (`links`).

Views may have millions of items. They are iterated, several times, and never held together.
"""

from dscache.view.cached import build, is_sound, is_whole, sync
from dscache.view.contents import Contents
from dscache.view.items import Item
from dscache.view.placing import Placed, Target, place

__all__ = [
    "Contents",
    "Item",
    "Placed",
    "Target",
    "build",
    "is_sound",
    "is_whole",
    "place",
    "sync",
]
