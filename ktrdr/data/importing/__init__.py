"""From a user's file to bars, or to a refusal that says which lines are wrong and how."""
