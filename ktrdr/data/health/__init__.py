"""Data quality of stored bars: anomalies, gaps, session times, and a verdict."""
