"""The tables and pages made from the committed rows."""
