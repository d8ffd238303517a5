"""``suggest`` in loops of one's own: scikit-learn, and a bare loop with Accelerate. Both run offline in a minute."""
