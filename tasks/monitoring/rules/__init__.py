"""The rules of watching: what was asked lately, held against what a version was promoted on."""
