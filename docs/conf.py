"""Sphinx: `make docs` builds these pages, and fails on any warning."""

from importlib.metadata import version as installed_version

project = "nmc"
author = "the nmc developers"
version = release = installed_version("nmc")

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3  # pages link to each other's headings

html_theme = "alabaster"
html_theme_options = {"description": "Spiking networks on neuromorphic cores", "page_width": "1040px"}
