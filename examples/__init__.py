"""Examples of jetmap. Each file runs; its first lines say how."""
