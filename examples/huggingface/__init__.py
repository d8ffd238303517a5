"""Fine-tuning with transformers and metahp: each example runs offline in a minute, or on the real model of the hub with ``--hub``."""
