"""Critiques and refinements: a strong model behind an API."""
