"""The papers as a collection: entries in our own words, joined with what the workbench holds and has measured."""
