"""What arguments must be, by subject; every message says what was expected, what came, and the corrected call."""
