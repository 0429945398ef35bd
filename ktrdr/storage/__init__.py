"""The storage root: confined paths, durable file calls, and the marker of its store."""
