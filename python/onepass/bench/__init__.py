"""``onepass bench``: times optimizer steps against those of other packages and against the machine's limit."""
