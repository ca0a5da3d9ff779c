"""Who came from what: edges between named things, walked in both directions."""
