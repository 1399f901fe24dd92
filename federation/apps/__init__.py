"""The two Flower apps, as thin as they can be: they hand messages on, and decide nothing."""
