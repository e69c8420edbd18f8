"""Make offline data and feedback on it."""
