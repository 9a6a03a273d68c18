"""The pool, watched: each dispatcher's activity as announced, and the view that all of it makes."""
