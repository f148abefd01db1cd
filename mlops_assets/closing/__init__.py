"""How a day is closed: what is known, what is computed, what is committed, what is then done."""
