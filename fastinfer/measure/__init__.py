"""fastinfer.measure."""
