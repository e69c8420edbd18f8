"""Learn policies from feedback (PyTorch)."""
