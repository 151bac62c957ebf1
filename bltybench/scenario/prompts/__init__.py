"""Prompts: composition, prose, lengths, conversations, and token counts."""
