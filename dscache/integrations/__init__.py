"""Integrations: other libraries on the cache, each a leaf that needs its library installed.

They use the public names of `dscache` and nothing else: what they cannot do with them, no user can.
"""
