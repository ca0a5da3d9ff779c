"""What spans the stages, over HTTP.

`projects`  the project's definition, builds, flows
`versions`  approvals, rejections, promotions, rollouts of one version; the environments
`state`     where the home stands; the loop; the clock
`past`      lineage, a prediction's record, why it was answered so
"""
