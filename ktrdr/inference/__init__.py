"""Use of a finished model: prediction, rules, evaluation."""
