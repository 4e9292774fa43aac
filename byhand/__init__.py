"""The small package behind the notebooks of Backprop by Hand. It holds no rule: those stand in the lectures."""
