"""Verifying: whether what the cache holds is still what was stored, and putting right what is not.

`verification` asks the question and gives the answer; `checking` knows what there is to look at,
`sweeping` looks, as fast as `pacing` lets it and from where `resuming` says that it had come;
`repairing` mends, with what `provenance` says of where a file came from; `recovering` makes lost
records anew.
"""

from dscache.verifying.verification import Question, verify

__all__ = ["Question", "verify"]
