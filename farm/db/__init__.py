"""The index in SQL: SQLite for one machine, PostgreSQL for a fleet. Rows never leave this package."""
