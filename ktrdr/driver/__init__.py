"""One attempt, from its row to its end: the driver actor and what it says to the supervisor."""
