"""A Ray to run on."""
