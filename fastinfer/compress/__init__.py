"""fastinfer.compress."""
