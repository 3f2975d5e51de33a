"""`velollm cuda bench`: what the engine reaches on this card, beside what the card itself can do."""
