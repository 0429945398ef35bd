"""Proof on the user's own strategy and bars: trained straight, and stopped, killed and resumed.

`conducting` is the parent, which needs neither torch nor Ray; `attempt` is the child that it
starts for every attempt at the training; `records` is what the two tell each other.
"""
