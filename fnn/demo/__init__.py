"""demo: check a network, train it and find a wrong equation, on digits that ship with the package."""
