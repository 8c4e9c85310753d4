"""Code of the book: figures, tables of stored results, the claims ledger, toy experiments."""

__all__: list[str] = []
