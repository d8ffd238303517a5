"""The suite ``small-nets``: small networks of four families on data made here, each as people write it, four times as wide, and longer."""
