"""demo: a network is checked, trained and caught with a wrong equation, on digits that come with the package."""
