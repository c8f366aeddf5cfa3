"""What ops and exchanges cost on a target, and where each figure comes from."""
