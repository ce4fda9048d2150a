"""What guides of other libraries show, done with this one; each file follows its guide's order."""
