"""Modules, graphs and the edits that change them."""
