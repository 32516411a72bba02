"""Benchmarks: dscache beside what people use today. They print, and assert nothing.

payloads     the files that are served, and the lists that name them
archives     those of them that are unpacked
room         folders, servers and the environment of a run
shaper       a throttle: each connection, or all of them together
peers        what is measured and written in Python, run as a process of its own
programs     the commands of the contenders, by what they are to fetch
timing       runs one command: wall seconds, CPU seconds, peak memory
measuring    contenders in turn, and the figures of each
transfers    the workloads that are tables of downloads
unpacking    the workloads of archives: unpacked, and linked into a project
verifying    what a cache holds, read again
reading      a file read through fsspec, and many opens
vision       torchvision's CIFAR10, with and without the cache (`cifar` is what is run)
special      the workloads that are something else
bars         what dscache is meant to reach, and whether it does
machine      on what it was measured, and with which versions
results      the figures as JSON
report       tables on the terminal and in docs/performance.md
chart        docs/performance.svg
"""
