"""Prompt extension: a short prompt made longer by a language model, local or behind an endpoint."""
