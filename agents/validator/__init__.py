"""The validator judges best and final checkpoints apart from the training, and proves the control metric."""
