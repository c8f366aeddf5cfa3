"""What was planned and what came of it, for people."""
