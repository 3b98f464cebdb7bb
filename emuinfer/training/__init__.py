"""How any network is trained: optimiser, checkpoints, configuration."""
