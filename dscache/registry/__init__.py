"""Registries: where dataset names are looked up.

`entries` is the file format, `places` are the folders and servers that hold the files, `lookup`
finds a name among them in order. `check`, `index`, `author` and `pooch` serve those who write
registries.
"""
