"""Whether the web extra is installed."""

from __future__ import annotations

from importlib.util import find_spec

from segrl.errors import SegrlError

MODULES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "httpx", "gradio")


def needs_web() -> None:
    """Raises SegrlError with the line that adds the web extra if a part of it is missing."""
    missing = [module for module in MODULES if find_spec(module) is None]
    if missing:
        raise SegrlError(f"{missing[0]} is not installed: pip install 'segrl[web]'")
