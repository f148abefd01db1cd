"""Flight delays of New York in 2013: the service that ships with the package."""
