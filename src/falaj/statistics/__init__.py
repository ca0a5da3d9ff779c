"""Pure functions of numbers; they know no stage. Standard library and msgspec only.

`ranking`     how well a score puts things in order
`bins`        a distribution as shares of bins, cut once from a frozen reference
`distances`   how far apart two such distributions are, and how far chance alone would put them
`sequential`  comparing two arms while they run, with an error rate that looking does not raise
"""
