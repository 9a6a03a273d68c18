"""Jobs: maps whose input, outcomes and state live in JetStream, so any process can run them."""
