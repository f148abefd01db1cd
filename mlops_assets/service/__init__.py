"""What was promised: frozen declarations, no I/O, no arithmetic."""
