"""Feedback loop: predictions -> outcomes -> labels."""
