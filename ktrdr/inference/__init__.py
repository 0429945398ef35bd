"""What a finished model is used for: prediction, rules, evaluation."""
