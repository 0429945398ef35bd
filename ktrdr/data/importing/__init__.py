"""Import of bars from files, or a refusal that names lines and reasons."""
