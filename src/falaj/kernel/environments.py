"""The environments that a home hosts, in the order in which a version passes them."""

from __future__ import annotations

DEV, STAGING, PRODUCTION = "dev", "staging", "production"
ENVIRONMENTS = (DEV, STAGING, PRODUCTION)

MEASUREMENT = "measurement"
"""Where a candidate is measured: a private data plane for minutes, which belongs to dev: its key, its policy."""


def home_of(environment: str) -> str:
    """The environment whose key and policy hold in `environment`: its own, and dev's where one measures."""
    return DEV if environment == MEASUREMENT else environment
