"""jetmap's benchmark: ``python -m bench`` measures it beside what it replaces, in one run."""
