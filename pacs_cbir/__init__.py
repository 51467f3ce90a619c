"""Content-based image retrieval beside a PACS: "show me studies that look like this one"."""

from importlib.metadata import version

__version__ = version("pacs-cbir")
