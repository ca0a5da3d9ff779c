"""What is written about a version for people and tools outside: pure, from facts that were verified.

`facts`  everything that the documents may say; what is not known is empty, and is left out
`bom`    the ML-BOM, CycloneDX 1.6
`card`   the model card, Markdown
"""
