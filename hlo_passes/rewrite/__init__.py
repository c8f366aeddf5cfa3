"""The edits that cut a program into parts."""
