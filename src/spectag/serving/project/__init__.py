"""The project of a server: a folder with a database, tables that the command line reads, and versions of a model."""
