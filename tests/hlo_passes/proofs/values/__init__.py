"""Random small programs, what comes out of them, and what is claimed of that beforehand."""
