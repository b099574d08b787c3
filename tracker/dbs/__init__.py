"""The DBS: what the tracker knows for good, in SQLite. Each module has the SQL of one subject."""
