"""What a user writes: the strategy's grammar, read from YAML into frozen values."""
