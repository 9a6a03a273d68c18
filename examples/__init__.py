"""Things to do with jetmap, each a file that runs: see the first lines of each."""
