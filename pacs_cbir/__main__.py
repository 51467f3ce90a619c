"""`python -m pacs_cbir` is `pacs-cbir`."""

from pacs_cbir.cli import main

main()
