"""jetmap beside its peers: other ways to run a function over a list on all cores."""
