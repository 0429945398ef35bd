"""Durable directories: checkpoints and models on storage, written once and verified on reading."""
