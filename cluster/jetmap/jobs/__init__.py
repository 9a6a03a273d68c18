"""Jobs: maps whose input, outcomes and state live in JetStream, so that anyone can carry them."""
