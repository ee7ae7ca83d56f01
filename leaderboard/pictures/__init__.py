"""Pictures of tables: pure functions from a table to a figure, without any global state of matplotlib."""
