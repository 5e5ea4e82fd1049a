"""Programs for people who work on BoilStream."""
