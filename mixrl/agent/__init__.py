"""The deep Q-network: how it is trained (torch, the ``train`` extra) and how it is used (numpy only)."""
