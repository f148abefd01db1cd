"""Feature loop: data -> features -> serving."""
