"""What ``jetmap demo`` runs."""
