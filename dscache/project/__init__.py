"""Projects: what a `dscache.toml` asks for, and the `dscache.lock` that says what that is.

`wanted` edits the one, `lockfile` is the format of the other, `lines` makes lines of datasets and
datasets of lines, `following` says what a name means in a project. It decides and looks; what is
written is written by the verbs above.
"""
