"""The rules: every optimizer's numbers beside the formula and torch, to the bit where that is promised."""
