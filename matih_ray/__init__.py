"""MATIH Ray: multi-tenant ingestion and streaming on Ray, in Python."""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__"]
