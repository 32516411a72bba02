"""The transfer engine: from wishes for artifacts to verified bytes.

`delivery` claims what is missing (`wants`, `space`) and publishes what arrives. `pool` keeps as
many connections busy (`running`, `rate`) as `hosts`, `growth` and `mirrors` find good. `download`
is the life of one file, `pieces` are its spans on further connections (`division`); `verdict` and
`blame` say what came instead of it, and from whom. A `parcel` is a small file that has no such life
as long as it comes whole and right. `sink` takes the bytes, `hashing` trails them,
`failures` says why a file could not be had.
"""
