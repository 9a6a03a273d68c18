"""``python -m jetmap.cli``."""

from jetmap.cli import main

main()
