"""Clients: what libraries around torch do with an optimizer."""
