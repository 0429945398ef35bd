"""Plots that the command line and notebooks share."""
