"""Other people's formats, read and written: one file per peer."""
