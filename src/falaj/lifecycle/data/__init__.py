"""Sources, ingestion, contracts, quarantine and dataset versions.

`model`  what a source, a load and a version are; rules that need no data
`ports`  what the stage needs: the applied definition, a place to remember versions
`steps`  the work in a step process: read files, judge rows, store the good ones and keep the bad ones

A load takes each new file once, judges every row by the contract, and either stores all good rows
with the reasons for the bad ones beside them, or refuses and stores nothing.
"""
