"""The operations actor: starts, stops, watches and restarts drivers."""
