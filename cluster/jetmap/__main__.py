"""``python -m jetmap``: the command line, of the Python that is named."""

from jetmap.cli import main

if __name__ == "__main__":
    main()
