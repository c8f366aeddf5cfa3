"""Deciding an order, and simulating what it is worth."""
