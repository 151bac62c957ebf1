"""Typed, validated scenarios, and the prompts, lengths, and arrivals drawn from them."""
