"""Sphinx: `make docs` builds these pages, and fails on any warning."""

from importlib.metadata import version as installed_version

project = "nmc"
author = "the nmc developers"
version = release = installed_version("nmc")

extensions = ["myst_nb"]  # myst_parser and notebooks
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
nb_execution_mode = "off"  # tests/unit/test_notebooks.py runs them
exclude_patterns = ["_build"]
myst_heading_anchors = 3  # pages link to each other's headings

html_theme = "alabaster"
html_theme_options = {"description": "Spiking networks on neuromorphic cores", "page_width": "1040px"}
