"""The strategy grammar, read from YAML into frozen values."""
