"""Registries: where dataset names are looked up.

The format: `tables` says which keys there are, `rules` which values make sense, `entries` makes
datasets of them; `manifest` reads long lists, `index` the list of all datasets. Reading: `places`
are the folders and servers that hold the files, `copies` what servers said, `order` which
registries are asked first, `lookup` finds a name in them. Writing: `author`, `blobs` and
`rendering`; `check` and `advice` find what is wrong or unwise; `pooch` speaks the format of Pooch.
"""
