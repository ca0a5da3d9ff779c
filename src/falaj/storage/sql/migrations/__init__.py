"""The history of `falaj.db`, as Alembic revisions in `versions`. A revision that was released never changes."""
