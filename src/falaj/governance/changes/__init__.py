"""Human decisions about versions: approvals and rejections, bound to a digest, its evidence *and* an environment.

An approval counts only for the evidence that its giver saw; evidence that changes afterwards voids
it. The author's own approval never counts: the policy refuses it.
"""
