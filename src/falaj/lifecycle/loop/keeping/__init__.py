"""Keeping a home: backups while it runs, and the list of its keys. What is copied and how is known to bootstrap."""
