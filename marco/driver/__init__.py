"""Drives many walks (the search of a tree, the answers to a problem) on the engines they share."""
