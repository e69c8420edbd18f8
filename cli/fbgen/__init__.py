"""The fbgen command."""
