"""fastinfer.passes."""
