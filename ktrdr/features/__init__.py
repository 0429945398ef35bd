"""From bars to a training set: indicators, fuzzy memberships, labels, splits, cache."""
