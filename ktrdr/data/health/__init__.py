"""Are stored bars fit to train on: anomalies, gaps, session times, and a verdict."""
