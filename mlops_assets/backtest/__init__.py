"""What would another policy have done? History judged again by the real functions, and nothing is written."""
