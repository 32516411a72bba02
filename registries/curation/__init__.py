"""How the bundled registries are made: facts of others, the choices of people, and what follows.

`facts` and `choices` read the inputs, `entries` makes registry files of them, `checks` says what is
wrong. None of this is installed; `curate.py` beside this package runs it.
"""
