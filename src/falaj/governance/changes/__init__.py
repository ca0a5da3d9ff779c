"""Human decisions about versions: approvals and rejections, bound to a digest *and* its evidence.

An approval counts only for the evidence that its giver saw; evidence that changes afterwards voids
it. The author's own approval never counts: the policy refuses it.
"""
