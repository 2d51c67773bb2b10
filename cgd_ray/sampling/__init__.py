"""Drafts: the student's own answers."""
