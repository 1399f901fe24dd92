"""The party's own ClientApp, under the name that Flower looks for."""

from federation.apps.client_app import app

__all__ = ["app"]
