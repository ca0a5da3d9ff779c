"""Keeping a home: `copying` takes a backup of an open home, `restoring` makes a home of one, `layout` knows what of a
home is kept and what is not."""
