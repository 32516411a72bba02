"""Unpacking: what an archive holds becomes the files of a draft, and nothing else of this machine.

`rules` decides what may be. `tars`, `zips` and `singles` read their formats, which `formats` tells
apart and `reading` brings together; `inner` goes on with archives in an archive. `growing` lets
them read a file that is still arriving; `unpacking` runs it all in a thread. Where the files are
put, and how they become a tree that others see, is the store's business.
"""
