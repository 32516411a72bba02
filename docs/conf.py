"""Sphinx configuration. Build: sphinx-build -W --keep-going -b html docs docs/_build/html"""

import re
from typing import Any

import dscache

project = "dscache"
author = "The dscache developers"
project_copyright = "The dscache developers"
version = release = dscache.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]

exclude_patterns = ["_build", "schema", "demo*"]
nitpicky = False
default_role = "code"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
# Large, and of no use for a page that only names what they are for.
autodoc_mock_imports = ["distributed", "torch", "torchvision"]
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_type_aliases = {name: name for name in ("Emit", "Patterns", "StrPath")}
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"dscache {release}"


def setup(app: Any) -> None:
    app.connect("autodoc-process-signature", _named_aliases)


def _named_aliases(*event: Any) -> tuple[str | None, str | None]:
    """Sphinx writes an alias within a union as the object that stands for it; name it instead."""
    *_, signature, returned = event
    pattern = r"TypeAliasForwardRef\('(\w+)'\)"
    return signature and re.sub(pattern, r"\1", signature), returned
