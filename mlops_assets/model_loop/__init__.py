"""Model loop: training -> gate -> release."""
