"""What a client does, whatever the face: submit, resume, verify. No Ray."""
