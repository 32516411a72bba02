"""`python -m dscache` is the command line."""

from dscache.cli import main

main()
