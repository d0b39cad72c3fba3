"""What each op means: schema, shape rule and reference, one file an op."""
