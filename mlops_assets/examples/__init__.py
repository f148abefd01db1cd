"""Whole services, written only with what somebody who installed the package can import."""
