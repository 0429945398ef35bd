"""Market bars: importing, checking, storing and reading them."""
