"""The compiler: pure functions from modules and costs to plans and modules."""
