"""The functions and the client of ``jetmap demo``."""
