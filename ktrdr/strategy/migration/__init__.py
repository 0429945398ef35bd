"""Rewriting older strategy files into the grammar, comments and layout kept."""
