"""Dropless layers: which rows a device sends to whom follows from counts that devices exchange."""
