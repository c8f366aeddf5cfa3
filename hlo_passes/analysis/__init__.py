"""Facts about a graph: who depends on whom, what ops are for, which memory is alive."""
