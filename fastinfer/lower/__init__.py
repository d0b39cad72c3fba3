"""fastinfer.lower."""
