"""fastinfer.graph."""
