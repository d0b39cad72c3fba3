"""fastinfer.tune."""
