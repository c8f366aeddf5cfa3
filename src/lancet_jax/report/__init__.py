"""What was planned and what came of it, for people.

Facts first, then how they look: `comparison` has a step before and after, `inspection` a module as
it stands, `step` every op in time; `text`, `html`, `perfetto`, `dot`, `model_explorer`, `figure`
and `ci` draw them. `why`, `whatif`, `gate`, `diff` and `pareto` answer one question each. Nothing
is decided here, and nothing read that the plan does not hold.

May import `peers`, `aot`, `profile`, `seams`, `errors` and `hlo_passes`.

Terms:
    exposed: time of an exchange with no compute beside it.
    hidden: the rest of it.
    left: what was not done, each with its reason.
    direction, layer: what an exchange is called by, besides its phase.
"""
