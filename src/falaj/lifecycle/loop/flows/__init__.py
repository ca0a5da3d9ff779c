"""The flows across stages.

`build`    data → training → packaging → measuring → evidence → registered → staging
`staging`  a registered version: dev, staging, rehearsed → awaiting approval
`rollout`  approval → admission → shadow → canary → promoted, or rolled back
`retrain`  an incident of drift → build
`release`  approval → admission → traffic plan → published → observed on the data plane
"""
