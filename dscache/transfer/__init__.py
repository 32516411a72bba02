"""The transfer engine: from wishes for artifacts to verified bytes.

`delivery` claims what is missing and publishes what arrives, `pool` keeps connections busy,
`download` is the life of one file, `sink` takes its bytes, `hashing` trails them, `retry` decides
when to try again.
"""
