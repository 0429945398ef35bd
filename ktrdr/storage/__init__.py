"""The storage root: confined paths, durable file calls, and the marker that says whose it is."""
