"""Datasets that outlive their paper: bundles with a manifest and a card, published, pulled, verified and rebuilt."""
