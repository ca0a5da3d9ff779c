"""Pure functions of numbers; they know no stage.

`ranking`  how well a score puts things in order
"""
