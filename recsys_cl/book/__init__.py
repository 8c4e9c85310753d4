"""Book code: figures, tables of stored results, the claims ledger, grounding and toy experiments."""

__all__: list[str] = []
