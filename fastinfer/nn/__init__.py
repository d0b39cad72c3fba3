"""fastinfer.nn."""
