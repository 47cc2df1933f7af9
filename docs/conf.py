"""The documentation site: pages of this folder, notebooks executed, API from the docstrings.

pip install ".[docs]" && sphinx-build -W docs site
"""

import os
import shutil
import sys
from pathlib import Path

from dmbp_jax.version import __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

project = "dmbp-jax"
author = "The dmbp-jax authors"
copyright = "the dmbp-jax authors"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "command_help",
    "docstrings",
    "mathml",
    "network_sizes",
    "public_names",
    "repository_links",
]
exclude_patterns = ["site", "_build", "**.ipynb_checkpoints"]
highlight_language = "none"  # commands and equations; Python says so
default_role = "literal"  # docstrings write `name`

# Notebooks lie at the top of the repository, without outputs; Sphinx reads only below this folder.
shutil.copytree(HERE.parent / "notebooks", HERE / "notebooks", dirs_exist_ok=True)
# "cache" executes a notebook when it has changed; "off" is for a quick look at the other pages.
nb_execution_mode = os.environ.get("NB_EXECUTION_MODE", "cache")
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
nb_render_markdown_format = "gfm"  # printed tables

myst_enable_extensions = ["dollarmath", "colon_fence"]
html_math_renderer = "mathml"
myst_heading_anchors = 3

napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
napoleon_use_ivar = True  # fields of a dataclass stand in its docstring, once
autodoc_typehints = "none"  # the docstrings say shapes, dtypes and ranges in words
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = "dmbp-jax"
html_static_path = ["style"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
copybutton_prompt_text = ">>> "
