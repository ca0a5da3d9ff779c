"""The flows across stages.

`build`    data → training → packaging → measuring → evidence → registered, awaiting approval
`release`  approval → admission → traffic plan → published → observed on the data plane
"""
