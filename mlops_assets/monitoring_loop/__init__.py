"""Monitoring loop: signals -> tiers -> decisions."""
