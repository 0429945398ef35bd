"""Pure PyTorch training: models, batches, the loop, its state and its exact resume."""
