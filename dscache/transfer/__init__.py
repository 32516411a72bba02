"""The transfer engine: from wishes for artifacts to verified bytes.

`delivery` claims what is missing and publishes what arrives, `pool` keeps connections busy as far
as `hosts` let it, `download` is the life of one file, `sink` takes its bytes, `hashing` trails
them, `failures` says why a file could not be had.
"""
