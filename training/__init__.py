"""How the shipped assets are made: synthetic heads and the generator trained on them."""
