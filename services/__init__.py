"""What runs beside the RunEngine: journal, catalog, live reconstruction, report."""
