"""The rules: plain typed functions over frozen records. No framework, no cloud, no environment, no clock."""
