"""``python -m jetmap.cli``."""

from . import main

main()
