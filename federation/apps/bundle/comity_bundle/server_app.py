"""The coordinator's own ServerApp, under the name that Flower looks for."""

from federation.apps.server_app import app

__all__ = ["app"]
