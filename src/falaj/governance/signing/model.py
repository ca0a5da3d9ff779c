"""What may be done with signing keys."""

from __future__ import annotations

from falaj.kernel.access import Action

KEY_ROTATE = Action("keys.rotate", "administration", "Key", "replace a key by a new one")
KEY_REVOKE = Action("keys.revoke", "administration", "Key", "let a signing key's signatures count no more")
ACTIONS = (KEY_ROTATE, KEY_REVOKE)
