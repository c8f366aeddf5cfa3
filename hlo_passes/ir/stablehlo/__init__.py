"""StableHLO modules: read (`read`, `body`), built (`build`), edited (`edit`), seen as a graph.

What a file asks of one op is asked in `read`, and nowhere else: is it a constant, a prefix sum, an
update, a reducer. An edit leaves its block legal and touches nothing else.

May import the rest of `ir` except `hlo`.

Terms:
    body: a block with tables of who makes and who reads its values.
    barrier: an `optimization_barrier`: its results are there only once all its operands are.
    tie: to let values wait for each other by a barrier.
    mesh: the named axes that devices are laid out on, as the module has them.
"""
