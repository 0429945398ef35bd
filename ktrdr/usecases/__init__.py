"""Use cases of a client: submit, resume, verify. No Ray."""
