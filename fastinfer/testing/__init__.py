"""fastinfer.testing."""
