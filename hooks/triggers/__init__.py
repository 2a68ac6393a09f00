"""Triggers: rules about what a push asks for, from `.modelyard.toml` and over REST, and what they fired."""
