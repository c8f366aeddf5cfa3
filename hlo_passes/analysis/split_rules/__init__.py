"""How every kind of op is cut into parts: one small file per family of ops."""
