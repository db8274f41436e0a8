"""Every replaceable component, one folder per port: `base` (the contract), its adapters, `fake`."""
