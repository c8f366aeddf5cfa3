"""dropless."""
