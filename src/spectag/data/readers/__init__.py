"""Readers of tables and folders of labels, one a form."""
